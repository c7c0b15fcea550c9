#include <fcntl.h>

#include "worker/qemu_backend.h"

int main() {
  vmmhost::worker::ServeOptions options;
  options.build = "vmmhost-backend-qemu " VMMHOST_BACKEND_QEMU_VERSION;
  // QEMU must not inherit the connection to the host.
  if (::fcntl(options.rpcDescriptor, F_SETFD, FD_CLOEXEC) != 0) {
    vmmhost::worker::log(vmmhost::worker::LogLevel::kError,
                         "this program is started by vmmhost, with a connection on descriptor 3");
    return 125;
  }
  qemubackend::QemuBackend backend;
  return vmmhost::worker::serve(backend, options);
}
