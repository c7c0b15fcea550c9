// The worker's side of the SDK: from the host's resources to a QemuMachine.
#pragma once

#include "vmmhost/worker/worker.h"

namespace qemubackend {

class QemuBackend final : public vmmhost::worker::Backend {
 public:
  std::vector<std::string> features() const override;
  kj::Promise<std::unique_ptr<vmmhost::worker::Machine>> create(vmmhost::schema::VmConfig::Reader config,
                                                                vmmhost::worker::Resources& resources,
                                                                vmmhost::worker::Events& events,
                                                                kj::AsyncIoContext& io) override;
};

}  // namespace qemubackend
