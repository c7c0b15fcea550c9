// vmmhost-worker-kvm: one virtual machine on KVM, spoken to over descriptor 3.
#include "vmmhost/worker/worker.h"
#include "worker-kvm/backend.h"

#ifdef VMMHOST_SANITIZED
// The search for leaks starts a process, which the jail refuses; the unit tests look for leaks of the same code. The
// worker's environment is empty, so that the option can only stand here.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "detect_leaks=0";
}
#endif

int main(int argc, char** argv) {
  vmmhost::kvm::KvmBackend backend;
  vmmhost::worker::ServeOptions options;
  options.build = "vmmhost " VMMHOST_VERSION;
  options.arguments = {argv, static_cast<std::size_t>(argc)};
  return vmmhost::worker::serve(backend, options);
}
