// The kvm backend of the worker protocol.
#pragma once

#include "vmmhost/worker/worker.h"

namespace vmmhost::kvm {

// Confinement, besides the jail that stands when the process starts: confine() gives up what creating a VM does not
// need; before create() is done, the thread of each virtual CPU may only run it, and the control thread only drive it.
class KvmBackend final : public worker::Backend {
 public:
  std::vector<std::string> features() const override;
  void confine() override;
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader config, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext& io) override;
};

}  // namespace vmmhost::kvm
