# vmmhost_unit_test(NAME SOURCES... LIBS... [LOCK NAME]): a GoogleTest program whose cases are ctest cases of their own;
# no two of the same lock run at the same time.
function(vmmhost_unit_test name)
  cmake_parse_arguments(arg "" "TIMEOUT;LOCK" "SOURCES;LIBS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE vmmhost_executable ${arg_LIBS} GTest::gtest GTest::gtest_main)
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${arg_TIMEOUT} RESOURCE_LOCK "${arg_LOCK}")
endfunction()
