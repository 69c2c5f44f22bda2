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
# of its input). Everywhere it becomes the program NAME, which tries the seeds and random changes of them, as a test.
# With SAGE_BUILD_FUZZ also NAME_libfuzzer, whose corpus NAME writes with --seeds. The target `fuzz_targets` builds all
# of them, and the file fuzz_targets.txt of the build lists the paths of the programs NAME.
set(SAGE_FUZZ_FOLDER "${CMAKE_CURRENT_LIST_DIR}/../common/fuzz")
set(SAGE_FUZZ_LIST "${CMAKE_BINARY_DIR}/fuzz_targets.txt")
if(SAGE_BUILD_FUZZ)
  add_custom_target(fuzz_targets)
  file(WRITE "${SAGE_FUZZ_LIST}" "")
endif()
function(sage_add_fuzz_target name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
  add_executable(${name} ${arg_SOURCES} ${SAGE_FUZZ_FOLDER}/driver.cpp)
  set(targets ${name})
  if(SAGE_BUILD_FUZZ)
    add_executable(${name}_libfuzzer ${arg_SOURCES})
    target_link_options(${name}_libfuzzer PRIVATE -fsanitize=fuzzer)
    list(APPEND targets ${name}_libfuzzer)
    add_dependencies(fuzz_targets ${targets})
    file(APPEND "${SAGE_FUZZ_LIST}" "${CMAKE_CURRENT_BINARY_DIR}/${name}\n")
  endif()
  foreach(target IN LISTS targets)
    sage_configure_target(${target})
    target_include_directories(${target} PRIVATE src ${SAGE_FUZZ_FOLDER})
    target_link_libraries(${target} PRIVATE ${arg_LINK})
  endforeach()
  # Bounded by time as well: under a sanitizer on a busy machine the changes are as many as there is time for.
  add_test(NAME ${name}/changes COMMAND ${name} 20000 8)
  set_tests_properties(${name}/changes PROPERTIES TIMEOUT 60)
endfunction()
