// A VM's worker: a jailed process that speaks worker.capnp, from its hello to its confirmation.
#pragma once

#include <kj/async-io.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "host/base/log.h"
#include "host/jailed/jailed_process.h"
#include "host/plugin/registry.h"
#include "ipc/jail/spawn/spawn.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::vm {

struct WorkerSpec {
  plugin::LaunchPlan plan;
  uid_t uid = 0;  // host ids of the worker
  gid_t gid = 0;
  std::vector<int> readable;  // see spawn::Jail
  std::vector<spawn::Jail::Rlimit> rlimits;
  std::set<std::string> without;
  bool explainsJail = false;  // a call that its jail forbids is looked at before the process ends
  int maxDescriptors = spawn::kMaxDescriptors;
  std::optional<jailed::Group> group;
  std::function<void(const char* phase)> mark;  // for timings
};

class WorkerProcess {
 public:
  // Starts the process. Throws Error when that fails at once. The thread must outlive the object.
  WorkerProcess(kj::AsyncIoContext& io, WorkerSpec spec, Log& log);
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // Greets, verifies, confirms and verifies again. Rejected with the reason; the process is then of no use. Once.
  kj::Promise<void> handshake();
  // Looks at the confinement of a worker that has confirmed again, every thread. Throws kConfinement.
  void verify() { process_.verify(true); }

  schema::Worker::Client worker() { return worker_; }
  std::uint16_t protocolMinor() const { return protocolMinor_; }  // as it said in its hello
  const std::string& build() const { return build_; }             // likewise: printable, at most kMaxBuildBytes

  jailed::JailedProcess& process() { return process_; }
  const jailed::JailedProcess& process() const { return process_; }

 private:
  jailed::JailedProcess process_;
  schema::Worker::Client worker_ = nullptr;
  std::uint16_t protocolMinor_ = 0;
  std::string build_;
};

}  // namespace vmmhost::vm
