# vmmhost_add_schemas(TARGET DIRECTORY): a static library of the C++ code that the installed Cap'n Proto compiler
# generates from DIRECTORY/*.capnp, with headers <vmmhost/schema/NAME.capnp.h>. Also installed: generated code fits
# exactly one version of Cap'n Proto, so that it is generated where it is used.
function(vmmhost_add_schemas target directory)
  find_program(VMMHOST_CAPNP capnp REQUIRED)
  find_program(VMMHOST_CAPNPC_CXX capnpc-c++ REQUIRED)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/generated/vmmhost/schema)
  file(MAKE_DIRECTORY ${output})
  set(sources "")
  foreach(name error vm worker host)
    add_custom_command(
      OUTPUT ${output}/${name}.capnp.c++ ${output}/${name}.capnp.h
      COMMAND ${VMMHOST_CAPNP} compile -o${VMMHOST_CAPNPC_CXX}:${output} --src-prefix=${directory}
              -I${CAPNP_INCLUDE_DIRECTORY} ${directory}/${name}.capnp
      DEPENDS ${directory}/error.capnp ${directory}/vm.capnp ${directory}/worker.capnp ${directory}/host.capnp
      COMMENT "Generating ${name}.capnp"
      VERBATIM)
    list(APPEND sources ${output}/${name}.capnp.c++)
  endforeach()
  add_library(${target} STATIC ${sources})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC ${CMAKE_CURRENT_BINARY_DIR}/generated)
endfunction()
