# vmmhost_unit_test(NAME SOURCES... LIBS... [LOCK NAME] [PROPERTIES...]): a GoogleTest program whose cases are ctest cases
# of their own, with these properties; no two of the same lock run at the same time.
function(vmmhost_unit_test name)
  cmake_parse_arguments(arg "" "TIMEOUT;LOCK" "SOURCES;LIBS;PROPERTIES" ${ARGN})
  if(arg_LOCK)
    list(APPEND arg_PROPERTIES RESOURCE_LOCK "${arg_LOCK}")
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE vmmhost_executable ${arg_LIBS} GTest::gtest GTest::gtest_main)
  set(environment "")
  if(VMMHOST_SANITIZE MATCHES "thread")
    set(environment ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${arg_TIMEOUT} ${environment} ${arg_PROPERTIES})
endfunction()
