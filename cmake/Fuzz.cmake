# Fuzzing: every file is compiled so that libFuzzer sees its branches.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "VMMHOST_FUZZ needs clang: cmake --preset fuzz")
endif()
# Cap'n Proto's own classes have no type information that the vptr check could look at across libraries.
target_compile_options(vmmhost_flags INTERFACE -O1 -fsanitize=fuzzer-no-link -fno-sanitize=vptr
  -Wno-unknown-warning-option -Wno-error)
target_link_options(vmmhost_flags INTERFACE -fno-sanitize=vptr)

# vmmhost_fuzz_target(NAME LIBS library... [SOURCES more...] [INCLUDES folder...]): fuzz_NAME from NAME.cc, as part of
# the target fuzzers.
add_custom_target(fuzzers)
function(vmmhost_fuzz_target name)
  cmake_parse_arguments(arg "" "" "LIBS;SOURCES;INCLUDES" ${ARGN})
  add_executable(fuzz_${name} ${name}.cc ${arg_SOURCES})
  target_include_directories(fuzz_${name} PRIVATE ${arg_INCLUDES})
  target_link_libraries(fuzz_${name} PRIVATE vmmhost_executable ${arg_LIBS})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers fuzz_${name})
endfunction()
