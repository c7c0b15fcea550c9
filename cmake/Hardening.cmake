# One interface target with the warnings and hardening flags of everything that is built here.
add_library(vmmhost_flags INTERFACE)
target_compile_options(vmmhost_flags INTERFACE
  -Wall -Wextra -Werror -Wno-missing-field-initializers
  -fstack-protector-strong -fstack-clash-protection -fcf-protection=full)
target_link_options(vmmhost_flags INTERFACE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed)
# Paths in programs and traces begin at the top folder, wherever that is: the same source makes the same code in every
# clone, and a compiler cache that one clone filled serves the others.
target_compile_options(vmmhost_flags INTERFACE -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
target_include_directories(vmmhost_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/ipc/include
  ${CMAKE_SOURCE_DIR}/host/include)
if(VMMHOST_SANITIZE)
  # Not the vptr check: it makes pipes for a moment, and a worker that is looked at just then has descriptors too many.
  target_compile_options(vmmhost_flags INTERFACE -fsanitize=${VMMHOST_SANITIZE} -fno-sanitize=vptr
    -fno-omit-frame-pointer -fno-sanitize-recover=all -Wno-error=maybe-uninitialized)
  if(VMMHOST_SANITIZE MATCHES "thread")
    # It knows no fences: what they order is ordered by loads and stores as well, where it looks.
    target_compile_options(vmmhost_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  endif()
  target_link_options(vmmhost_flags INTERFACE -fsanitize=${VMMHOST_SANITIZE})
  target_compile_definitions(vmmhost_flags INTERFACE VMMHOST_SANITIZED=1)
else()
  target_compile_options(vmmhost_flags INTERFACE $<$<CONFIG:Release>:-U_FORTIFY_SOURCE>
    $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
endif()

# Executables are position-independent, so that the loader places them anew in each process.
add_library(vmmhost_executable INTERFACE)
target_link_libraries(vmmhost_executable INTERFACE vmmhost_flags)
target_link_options(vmmhost_executable INTERFACE -pie)

# Static workers run in an empty root. Sanitizers need the dynamic loader: there the worker is dynamic.
add_library(vmmhost_worker_executable INTERFACE)
target_link_libraries(vmmhost_worker_executable INTERFACE vmmhost_flags)
if(VMMHOST_SANITIZE)
  target_link_options(vmmhost_worker_executable INTERFACE -pie)
else()
  target_link_options(vmmhost_worker_executable INTERFACE -static-pie)
endif()
