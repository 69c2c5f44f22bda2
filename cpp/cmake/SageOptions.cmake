# The switches of the native build.
option(SAGE_BUILD_TESTS "Build the C++ tests (needs GoogleTest)" ${PROJECT_IS_TOP_LEVEL})
option(SAGE_BUILD_PYTHON "Build the Python extension modules (needs pybind11)" OFF)
option(SAGE_BUILD_FUZZ "Build the fuzz targets with libFuzzer (needs Clang and SAGE_BUILD_TESTS)" OFF)
option(SAGE_WARNINGS_AS_ERRORS "Treat compiler warnings in our own targets as errors" ON)
set(SAGE_SANITIZE "" CACHE STRING "Sanitizers, comma separated: address, undefined, thread")

string(REPLACE "," ";" SAGE_SANITIZERS "${SAGE_SANITIZE}")
foreach(sanitizer IN LISTS SAGE_SANITIZERS)
  if(NOT sanitizer MATCHES "^(address|undefined|thread)$")
    message(FATAL_ERROR "SAGE_SANITIZE must list address, undefined or thread, got '${sanitizer}'")
  endif()
endforeach()
if("address" IN_LIST SAGE_SANITIZERS AND "thread" IN_LIST SAGE_SANITIZERS)
  message(FATAL_ERROR "SAGE_SANITIZE cannot combine address with thread: their run times exclude each other")
endif()

if(SAGE_BUILD_FUZZ AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "SAGE_BUILD_FUZZ needs Clang, whose libFuzzer it uses; the compiler is ${CMAKE_CXX_COMPILER_ID}. "
                      "The targets are tests without it as well: ctest -R fuzz")
endif()
if(SAGE_BUILD_FUZZ AND NOT SAGE_SANITIZERS)
  message(FATAL_ERROR "SAGE_BUILD_FUZZ needs a sanitizer, without which most damage goes unnoticed: "
                      "-DSAGE_SANITIZE=address,undefined")
endif()

get_property(sage_multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(NOT sage_multi_config AND NOT CMAKE_BUILD_TYPE)
  # An unoptimised distance kernel is of no use to anybody who did not ask for it.
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
