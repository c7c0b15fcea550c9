# Tests go in groups by their folder: ipc, host, worker-kvm, and each folder of tests/. A group's name is the label of its
# ctest cases, and `tests-NAME` the target that builds its programs.
function(vmmhost_test_group result)
  file(RELATIVE_PATH folder ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  string(REGEX REPLACE "^(tests/)?([^/]+).*$" "\\2" group ${folder})
  if(NOT TARGET tests-${group})
    add_custom_target(tests-${group})
  endif()
  set(${result} ${group} PARENT_SCOPE)
endfunction()

# Properties of every test program in C++: what ThreadSanitizer is not to tell.
set(VMMHOST_SANITIZER_ENVIRONMENT "")
if(VMMHOST_SANITIZE MATCHES "thread")
  set(VMMHOST_SANITIZER_ENVIRONMENT ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
endif()

# vmmhost_unit_test(NAME SOURCES... LIBS... [LOCK NAME] [TIMEOUT SECONDS] [PROPERTIES...]): a GoogleTest program whose
# cases are ctest cases of their own, with these properties; no two of the same lock run at the same time. Where a
# sanitizer is built in, which starts slowly, a program without LOCK and PROPERTIES is one case, NAME, that runs them all.
function(vmmhost_unit_test name)
  cmake_parse_arguments(arg "" "TIMEOUT;LOCK" "SOURCES;LIBS;PROPERTIES" ${ARGN})
  if(arg_LOCK)
    list(APPEND arg_PROPERTIES RESOURCE_LOCK "${arg_LOCK}" COST 50)  # in a row, and so from the beginning
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE vmmhost_executable ${arg_LIBS} GTest::gtest GTest::gtest_main)
  vmmhost_precompile(${name} test)
  vmmhost_test_group(group)
  add_dependencies(tests-${group} ${name})
  set(environment ${VMMHOST_SANITIZER_ENVIRONMENT})
  if(VMMHOST_SANITIZE AND NOT arg_LOCK AND NOT arg_PROPERTIES)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS ${group} COST 30 TIMEOUT 600 ${environment})
    return()
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${group} TIMEOUT ${arg_TIMEOUT} ${environment} ${arg_PROPERTIES})
endfunction()
