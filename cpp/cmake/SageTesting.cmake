# GoogleTest is found, never downloaded.
find_package(GTest QUIET)
if(NOT GTest_FOUND)
  message(
    FATAL_ERROR
      "SAGE_BUILD_TESTS needs GoogleTest, which was not found. Install it "
      "(Debian, Ubuntu: apt-get install libgtest-dev; Fedora: dnf install gtest-devel; "
      "macOS: brew install googletest), name its place with -DGTest_DIR=..., "
      "or build without tests: -DSAGE_BUILD_TESTS=OFF"
  )
endif()
include(GoogleTest)

# sage_add_test(NAME SOURCES ... LINK ...): a GoogleTest program, each of its tests known to ctest.
function(sage_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  add_executable(${name} ${arg_SOURCES})
  sage_configure_target(${name})
  target_link_libraries(${name} PRIVATE ${arg_LINK} GTest::gtest_main)
  gtest_discover_tests(${name} TEST_PREFIX "${name}/" PROPERTIES TIMEOUT 60 DISCOVERY_TIMEOUT 60)
endfunction()

# sage_add_fuzz_target(NAME SOURCES ... LINK ...): a fuzz target (LLVMFuzzerTestOneInput, and seeds() that gives examples
# of its input). Everywhere it becomes the program NAME, which tries the seeds and a fixed number of random changes of
# them, as a test. With SAGE_BUILD_FUZZ also NAME_libfuzzer, and its corpus in the folder NAME_corpus of the build.
set(SAGE_FUZZ_DRIVER "${CMAKE_CURRENT_LIST_DIR}/../common/fuzz/driver.cpp")
function(sage_add_fuzz_target name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  add_executable(${name} ${arg_SOURCES} ${SAGE_FUZZ_DRIVER})
  set(targets ${name})
  if(SAGE_BUILD_FUZZ)
    add_executable(${name}_libfuzzer ${arg_SOURCES})
    target_compile_options(${name}_libfuzzer PRIVATE -fsanitize=fuzzer)
    target_link_options(${name}_libfuzzer PRIVATE -fsanitize=fuzzer)
    list(APPEND targets ${name}_libfuzzer)
    add_test(NAME ${name}/corpus COMMAND ${name} --seeds ${CMAKE_CURRENT_BINARY_DIR}/${name}_corpus)
    set_tests_properties(${name}/corpus PROPERTIES FIXTURES_SETUP ${name}_corpus)
    add_test(NAME ${name}/libfuzzer COMMAND ${name}_libfuzzer -max_total_time=20
                                            ${CMAKE_CURRENT_BINARY_DIR}/${name}_corpus)
    set_tests_properties(${name}/libfuzzer PROPERTIES FIXTURES_REQUIRED ${name}_corpus TIMEOUT 60)
  endif()
  foreach(target IN LISTS targets)
    sage_configure_target(${target})
    target_include_directories(${target} PRIVATE src)
    target_link_libraries(${target} PRIVATE ${arg_LINK})
  endforeach()
  add_test(NAME ${name}/changes COMMAND ${name} 20000)
  set_tests_properties(${name}/changes PROPERTIES TIMEOUT 60)
endfunction()
