# Enables C++, or ends with a message that says what to install.
include(CheckLanguage)

check_language(CXX)
if(NOT CMAKE_CXX_COMPILER AND DEFINED SKBUILD AND DEFINED ENV{CXX})
  # pip's build puts the name of the compiler that built Python into CXX, without looking whether it is here: a
  # machine that has Clang alone would seem to have none.
  set(sage_cxx_asked "$ENV{CXX}")
  unset(ENV{CXX})
  unset(CMAKE_CXX_COMPILER CACHE)
  check_language(CXX)
  if(CMAKE_CXX_COMPILER)
    message(WARNING "The C++ compiler '${sage_cxx_asked}' was not found, using ${CMAKE_CXX_COMPILER}.")
  endif()
endif()
if(NOT CMAKE_CXX_COMPILER)
  set(sage_cxx_detail "")
  if(DEFINED ENV{CXX})
    set(sage_cxx_detail " CXX names '$ENV{CXX}', which does not exist or does not work.")
  endif()
  message(
    FATAL_ERROR
      "No C++ compiler found. The native parts of SAGE are built on this machine and need a C++20 compiler "
      "(GCC 12 or newer, Clang 14 or newer).${sage_cxx_detail}\n\n"
      "  Install one and run the same command again:\n"
      "    Debian, Ubuntu:   apt-get install g++\n"
      "    Fedora, RHEL:     dnf install gcc-c++\n"
      "    Arch:             pacman -S gcc\n"
      "    Alpine:           apk add g++\n"
      "    macOS:            xcode-select --install\n"
      "    conda:            conda install -c conda-forge cxx-compiler\n"
      "  A compiler that is not on PATH can be named with the environment variable CXX."
  )
endif()
enable_language(CXX)

# Older compilers fail later with pages of template errors; one line here is kinder.
if((CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
   OR (CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14))
  message(
    FATAL_ERROR
      "The C++ compiler is too old: ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} (${CMAKE_CXX_COMPILER}). "
      "SAGE needs GCC 12 or newer, or Clang 14 or newer; name another one with the environment variable CXX."
  )
endif()
