// One VM, from preparing to ended: its parts, in the order in which they come and go, and what is told about it.
#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/base/log.h"
#include "host/vm/consoles.h"
#include "host/vm/disk_settling.h"
#include "host/vm/life.h"
#include "host/vm/outcome.h"
#include "host/vm/resources.h"
#include "host/vm/vm_abilities.h"
#include "host/vm/vm_spec.h"
#include "host/vm/vsock.h"
#include "host/vm/worker_events.h"
#include "host/vm/worker_memory.h"
#include "host/vm/worker_process.h"
#include "vmmhost/counters.h"

namespace vmmhost::vm {

class Vm {
 public:
  // `meter` and `log` outlive it.
  Vm(kj::AsyncIoContext& io, VmSpec spec, Log& log, MemoryMeter& meter);
  ~Vm();  // ends the worker if it lives; everything it held goes
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // Everything from opening files to guest code running. Rejected with the reason; the VM has then ended. Once.
  kj::Promise<void> start();
  // Ends it; fulfilled when it has ended. A later call than the first changes nothing. `signal` for kind signalled.
  kj::Promise<void> stop(schema::EndKind kind, std::string reason, int signal = 0);
  kj::Promise<void> onEnded() { return ended_.addBranch(); }
  const Outcome& outcome() const { return outcome_; }  // once ended

  Life& life() { return life_; }
  VmAbilities& abilities() { return abilities_; }
  Consoles& consoles() { return consoles_; }
  // A connection to `port` of the guest, as a client of <vsockFolder>/vsock makes it: the first line that comes is
  // "OK <host port>"; closed if the guest does not want it. Throws Error.
  Fd connectVsock(std::uint32_t port);

  // The worker's private memory, for describe(). 0: it has none, or it is not told within that time, which has a bound
  // of its own. Not as often as anybody likes to ask.
  kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds within = std::chrono::milliseconds(1000));
  void describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes = 0);

 private:
  void requireWanted(const char* doing) const;  // throws kCancelled once its end has begun
  kj::Promise<void> launch();
  kj::Promise<void> launchWorker();
  void prepareVsock(schema::VmConfig::Builder config);
  kj::Promise<void> handOver(std::vector<Fd> consoles);
  void takeVm(schema::Worker::CreateResults::Reader created);  // and looks at the worker once more
  void watchWorker();
  void beginEnd(WorkerEvents::End end, int signal = 0);
  kj::Promise<void> carryOutEnd();
  kj::Promise<void> measureAtEnd();

  kj::AsyncIoContext& io_;
  VmSpec spec_;
  Log& log_;
  capnp::MallocMessageBuilder original_;  // the configuration as it was given, for those who ask
  schema::VmConfig::Reader originalConfig_;
  Life life_;
  OpenedResources resources_;
  DiskSettling disks_;
  std::unique_ptr<counters::HostPage> counters_;
  Consoles consoles_;
  WorkerMemory memory_;
  WorkerEvents events_;
  std::unique_ptr<WorkerProcess> worker_;
  std::unique_ptr<Vsock> vsock_;  // null: the configuration has no vsock device
  schema::Vm::Client vm_ = nullptr;
  VmAbilities abilities_;
  std::vector<plugin::LaunchPlan::Device> devices_;
  std::chrono::milliseconds createTimeout_{0};
  // Set when nobody wants the copies of boot files any more that a thread makes.
  std::shared_ptr<std::atomic<bool>> bootFilesUnwanted_ = std::make_shared<std::atomic<bool>>(false);

  Outcome outcome_;
  bool isEndForced_ = false;
  kj::Own<kj::PromiseFulfiller<void>> endForced_;  // null unless an end waits for a measurement
  kj::Own<kj::PromiseFulfiller<void>> endedFulfiller_;
  kj::ForkedPromise<void> ended_ = nullptr;
  kj::Promise<void> workerWatch_ = nullptr;
  kj::Promise<void> timeout_ = nullptr;
  kj::Promise<void> endTask_ = nullptr;
};

}  // namespace vmmhost::vm
