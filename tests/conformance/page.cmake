# docs/capabilities.md is as the results make it that the tests conformance.* and, in the lab, lab.conformance leave.
get_property(_results GLOBAL PROPERTY VMMHOST_CONFORMANCE_RESULTS)
if(NOT _results)
  return()
endif()
find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)
set(_page ${CMAKE_CURRENT_LIST_DIR}/page.py)
set(_elsewhere "")
if(VMMHOST_SANITIZE)
  set(_elsewhere --elsewhere "kvm, hardware (lab)")
endif()
add_test(NAME conformance.page
  COMMAND Python3::Interpreter -B ${_page} --check ${_elsewhere} ${CMAKE_SOURCE_DIR}/docs/capabilities.md ${_results})
get_property(_fixtures GLOBAL PROPERTY VMMHOST_CONFORMANCE_FIXTURES)
list(REMOVE_DUPLICATES _fixtures)
# Skipped: not every column was looked at, as without the lab.
set_tests_properties(conformance.page PROPERTIES FIXTURES_REQUIRED "${_fixtures}" SKIP_RETURN_CODE 77)
if(lab IN_LIST _fixtures)
  # Where tests of the lab are left out, it is as well: it waits for them.
  set_tests_properties(conformance.page PROPERTIES LABELS lab)
endif()
add_test(NAME conformance.page-maker COMMAND Python3::Interpreter -B -m unittest -v page_test
  WORKING_DIRECTORY ${CMAKE_CURRENT_LIST_DIR})
add_custom_target(conformance-page
  COMMAND Python3::Interpreter -B ${_page} ${CMAKE_SOURCE_DIR}/docs/capabilities.md ${_results} VERBATIM)
