#include <fcntl.h>

#include "worker/qemu_backend.h"

#ifdef VMMHOST_SANITIZED
// The jail forbids what sanitizers do at their start and end: tracing this process in search of leaks (the tests look
// for leaks of the same code) and changing limits (the jail has set that on core dumps). The environment is empty, so
// that the options can only stand here.
#define SANITIZER_OPTIONS extern "C" __attribute__((visibility("default"))) const char*
SANITIZER_OPTIONS __asan_default_options() {
  return "detect_leaks=0:disable_coredump=0";
}
SANITIZER_OPTIONS __tsan_default_options() {
  return "disable_coredump=0";
}
#endif

int main(int argc, char** argv) {
  vmmhost::worker::ServeOptions options;
  options.build = "vmmhost-backend-qemu " VMMHOST_BACKEND_QEMU_VERSION;
  options.arguments = {argv, static_cast<std::size_t>(argc)};
  // QEMU must not inherit the connection to the host.
  if (::fcntl(options.rpcDescriptor, F_SETFD, FD_CLOEXEC) != 0) {
    vmmhost::worker::log(vmmhost::worker::LogLevel::kError,
                         "this program is started by vmmhost, with a connection on descriptor 3");
    return 125;
  }
  qemubackend::QemuBackend backend;
  return vmmhost::worker::serve(backend, options);
}
