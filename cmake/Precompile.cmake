# Headers that most units begin with are parsed once: vmmhost_precompile(TARGET KIND) gives them to a target, whose sources
# are all C++, with KIND
#
#   std    the C++ library's; for libraries
#   test   GoogleTest's and the C++ library's; for executables
#
# g++ forgets in them that the code is not ours, and warns of it: of Cap'n Proto's always, of the C++ library's where it
# optimises. So Cap'n Proto is in none, and only the presets of sanitizers, which do not optimise, have this. What a unit
# does not include itself is seen where the others are built.
option(VMMHOST_PRECOMPILE "Precompile headers (g++, and no optimisation)" OFF)
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(VMMHOST_PRECOMPILE OFF)
endif()

if(VMMHOST_PRECOMPILE)
  set(_std <algorithm> <array> <atomic> <cerrno> <chrono> <cstdint> <cstdio> <cstring> <functional> <list> <map> <memory>
    <mutex> <optional> <set> <span> <string> <string_view> <utility> <variant> <vector>)
  # ccache takes a unit with a precompiled header only so.
  target_compile_options(vmmhost_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  set(_source ${CMAKE_BINARY_DIR}/precompile/nothing.cc)
  file(CONFIGURE OUTPUT ${_source} CONTENT "int main() {}\n" @ONLY)
  add_library(vmmhost_precompiled_std STATIC EXCLUDE_FROM_ALL ${_source})
  target_link_libraries(vmmhost_precompiled_std PRIVATE vmmhost_flags)
  target_precompile_headers(vmmhost_precompiled_std PRIVATE ${_std})
  if(VMMHOST_BUILD_TESTS)
    add_executable(vmmhost_precompiled_test EXCLUDE_FROM_ALL ${_source})
    target_link_libraries(vmmhost_precompiled_test PRIVATE vmmhost_executable GTest::gtest)
    target_precompile_headers(vmmhost_precompiled_test PRIVATE <gtest/gtest.h> ${_std})
  endif()
endif()

function(vmmhost_precompile target kind)
  if(VMMHOST_PRECOMPILE)
    target_precompile_headers(${target} REUSE_FROM vmmhost_precompiled_${kind})
  endif()
endfunction()
