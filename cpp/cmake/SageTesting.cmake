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
