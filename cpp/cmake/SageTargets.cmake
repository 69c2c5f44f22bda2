# Functions that define our targets the same way everywhere.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Language level, warnings and sanitizers of one of our own targets.
function(sage_configure_target target)
  set_target_properties(${target} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
                                             POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # GCC's -Wconversion leaves signs out; without this a list of sizes such as {1, 7, 8} is an error.
    target_compile_options(${target} PRIVATE -Wno-sign-conversion)
  endif()
  if(SAGE_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(SAGE_SANITIZERS)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # Sanitizers hide from GCC what is initialised; without them the warning stays on.
      target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    endif()
    list(JOIN SAGE_SANITIZERS "," sanitizers)
    target_compile_options(${target} PRIVATE -fsanitize=${sanitizers} -fno-sanitize-recover=all
                                             -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${sanitizers}>)
  endif()
  if(SAGE_BUILD_FUZZ)
    # The libraries too tell libFuzzer which branches an input has taken; without it, it would search blindly.
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# sage_add_library(NAME SOURCES ... LINK ...): the static library sage_NAME, used as sage::NAME, with its
# headers in include/, installed as the CMake package sage_NAME.
function(sage_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK;REQUIRES")
  set(target sage_${name})
  add_library(${target} STATIC ${arg_SOURCES})
  add_library(sage::${name} ALIAS ${target})
  sage_configure_target(${target})
  # Hidden: two extension modules in one process each carry their own copy and must not share symbols.
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PUBLIC ${arg_LINK})

  set(SAGE_PACKAGE_NAME ${target})
  set(SAGE_PACKAGE_DEPENDENCIES "")
  foreach(dependency IN LISTS arg_REQUIRES)
    string(APPEND SAGE_PACKAGE_DEPENDENCIES "find_dependency(${dependency})\n")
  endforeach()
  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/${target})
  configure_package_config_file(
    "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/SagePackageConfig.cmake.in" ${target}Config.cmake
    INSTALL_DESTINATION ${package_dir}
  )
  write_basic_package_version_file(
    ${target}ConfigVersion.cmake VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion
  )
  install(TARGETS ${target} EXPORT ${target}Targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
  install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp)
  install(EXPORT ${target}Targets NAMESPACE sage:: DESTINATION ${package_dir} COMPONENT cpp)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/${target}Config.cmake"
                "${CMAKE_CURRENT_BINARY_DIR}/${target}ConfigVersion.cmake"
          DESTINATION ${package_dir} COMPONENT cpp)
endfunction()

# sage_add_benchmark(NAME SOURCES ... LINK ...): a Google Benchmark program, where Google Benchmark is installed.
function(sage_add_benchmark name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  find_package(benchmark QUIET)
  if(NOT benchmark_FOUND)
    message(STATUS "Google Benchmark is not installed: ${name} is left out (Debian: libbenchmark-dev)")
    return()
  endif()
  add_executable(${name} ${arg_SOURCES})
  sage_configure_target(${name})
  target_link_libraries(${name} PRIVATE ${arg_LINK} benchmark::benchmark_main)
endfunction()

# sage_add_python_module(NAME SOURCES ... LINK ...): the extension module sage.middleware.NAME.
function(sage_add_python_module name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
  find_package(pybind11 2.12 CONFIG QUIET)
  if(NOT pybind11_FOUND)
    message(
      FATAL_ERROR
        "SAGE_BUILD_PYTHON needs pybind11 >= 2.12. Install it with 'pip install pybind11' and pass "
        "-Dpybind11_DIR=$(python -m pybind11 --cmakedir), or build with 'pip install packages/sage-middleware', "
        "which does both."
    )
  endif()
  pybind11_add_module(${name} MODULE ${arg_SOURCES})
  sage_configure_target(${name})
  target_link_libraries(${name} PRIVATE ${arg_LINK})
  install(TARGETS ${name} DESTINATION sage/middleware COMPONENT python)
endfunction()
