// vmmhost-worker-kvm: one virtual machine on KVM, spoken to over descriptor 3.
#include "vmmhost/worker/worker.h"
#include "worker-kvm/backend.h"

int main() {
  vmmhost::kvm::KvmBackend backend;
  vmmhost::worker::ServeOptions options;
  options.build = "vmmhost " VMMHOST_VERSION;
  return vmmhost::worker::serve(backend, options);
}
