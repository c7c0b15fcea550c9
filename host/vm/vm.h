// One VM: its worker process, its life from preparing to ended, and what is told about it.
#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "host/base/log.h"
#include "host/plugin/registry.h"
#include "host/vm/abilities.h"
#include "host/vm/console.h"
#include "host/vm/event_rate.h"
#include "host/vm/few_lines.h"
#include "host/vm/memory_meter.h"
#include "host/vm/outcome.h"
#include "host/vm/reopenable.h"
#include "host/vm/resources.h"
#include "host/vm/vsock.h"
#include "host/vm/worker_process.h"
#include "vmmhost/counters.h"

namespace vmmhost::vm {

struct VmSpec {
  std::unique_ptr<capnp::MallocMessageBuilder> config;  // root VmConfig, validated, with a name
  std::string backend;
  std::string choice;  // why this backend; empty: it was named
  plugin::LaunchPlan plan;
  std::string workingDirectory;
  uid_t uid = 0;  // host ids for the worker
  gid_t gid = 0;
  std::set<std::string> without;  // parts of the jail given up
  // How long an end that the guest brought about waits for the worker's private memory to be measured, which the
  // outcome tells then; 0: it is not measured. An end that somebody else wants never waits.
  std::chrono::milliseconds measureMemory{0};
  std::chrono::milliseconds timeout{0};  // from start() on; 0: none
  // Where a console's output is kept: asked once for each; may be null, and may answer null.
  std::function<std::unique_ptr<RotatingFile>(std::uint32_t port)> consoleFile;
  bool keepConsole = false;  // the last output can be had after the end, by a client that was slow to ask
  std::string groupName;     // of its control groups, unlike that of any other VM
  std::function<void(const std::vector<std::string>&)> onCgroups;  // told the folders before they are made
  // For the sockets of a vsock device (host/vm/vsock.h), with its path; empty: the VM can have none.
  Fd vsockFolder;
  std::string vsockFolderPath;
};

class Vm final : private AbilityOwner {
 public:
  using Timings = std::vector<std::pair<std::string, std::uint64_t>>;  // phase, CLOCK_MONOTONIC ns

  // `meter` and `log` outlive it.
  Vm(kj::AsyncIoContext& io, VmSpec spec, Log& log, MemoryMeter& meter);
  ~Vm();  // ends the worker if it lives; everything it held goes
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // Everything from opening files to guest code running. Rejected with the reason; the VM has then ended. Once.
  kj::Promise<void> start();

  kj::Promise<void> pause();
  kj::Promise<void> resume();
  kj::Promise<void> shutdown();  // asks the guest
  kj::Promise<void> reset();
  kj::Promise<void> setBalloon(std::uint64_t target);  // bytes that the guest is to give up
  struct BalloonState {
    std::uint64_t target = 0;
    std::uint64_t actual = 0;  // as the guest tells
  };
  kj::Promise<BalloonState> balloon();
  // The terminal that consoles[port] is shown on has this size.
  kj::Promise<void> resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows);
  // The worker's abilities, for a client: through the same gate as the calls above.
  void handOutAbilities(schema::Abilities::Builder out) { abilities_.handOut(out); }
  // A connection to `port` of the guest, as a client of <vsockFolder>/vsock makes it: the first line that comes is
  // "OK <host port>"; closed if the guest does not want it. Throws Error.
  Fd connectVsock(std::uint32_t port);
  // Ends it; fulfilled when it has ended. A later call than the first changes nothing. `signal` for kind signalled.
  kj::Promise<void> stop(schema::EndKind kind, std::string reason, int signal = 0);

  kj::Promise<void> onEnded() { return ended_.addBranch(); }
  schema::VmState state() const { return state_; }
  const Outcome& outcome() const { return outcome_; }  // once ended
  // Fulfilled when there is a console to attach to, which is before guest code runs; rejected if there never will be.
  kj::Promise<void> onConsole() { return consoleReady_.addBranch(); }
  // `port`: the index in the configuration's list; 0 is there always.
  Fd attachConsole(std::uint32_t replayBytes, bool input, std::uint32_t port);

  // Called at each change of state from now on, until the returned object goes. In order, each once.
  using Watcher = std::function<void(schema::VmState, std::int64_t unixMs, const std::string& detail)>;
  class Watch {
   public:
    ~Watch();

   private:
    friend class Vm;
    std::list<Watcher>* list = nullptr;
    std::list<Watcher>::iterator position;
  };
  std::unique_ptr<Watch> watch(Watcher watcher);

  void mark(const char* phase);
  void addTiming(std::string phase, std::uint64_t ns) { timings_.emplace_back(std::move(phase), ns); }
  // The worker's private memory, for describe(): its whole address space is gone through, beside the event loop. 0: it
  // has none, or is not done with within that time, which has a bound of its own. Not as often as anybody likes to ask.
  kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds within = std::chrono::milliseconds(1000));
  void describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes = 0);
  schema::VmConfig::Reader config() const { return originalConfig_; }

 private:
  class Sink;

  kj::Promise<void> launch();
  void takeBootFiles(std::vector<BootFile> copies);
  kj::Promise<void> launchWorker();
  kj::Promise<void> handOver();
  void takeVm(schema::Worker::CreateResults::Reader created);  // and looks at the worker once more
  void makeConsoles();
  void prepareVsock(schema::VmConfig::Builder config);
  void attachAll(kj::Vector<kj::Promise<void>>& attached);
  void watchWorker();
  // How long the answer to it waits: a guest decides how often its worker tells of something, and a worker that is what
  // it should be tells no faster than is answered.
  kj::Duration noteEvent(schema::Event::Reader event);
  void noteEnd(schema::Event::Ended::Reader ended);
  void noteFullDisk(std::uint32_t index, kj::TimePoint now);
  void blameForEvents();  // the worker sends them without waiting for answers
  void beginEnd(schema::EndKind kind, schema::EndCause cause, std::string detail, std::optional<Error> error,
                int signal = 0);
  kj::Promise<void> carryOutEnd();
  kj::Promise<void> settleDisks();
  void tellOfDisks(const std::vector<std::string>& lines);
  void setState(schema::VmState state, const std::string& detail = {});
  void requireConsole(std::uint32_t port) const;
  kj::Promise<std::uint64_t> measure(std::chrono::milliseconds limit);

  void nameAbilities();
  void requireAnswering(const std::string& verb) const override;
  bool isEnding() const override { return ending_; }
  const std::string& backend() const override { return spec_.backend; }
  kj::Timer& timer() override { return io_.provider->getTimer(); }
  kj::Promise<Error> explain(kj::Exception exception) override;

  kj::AsyncIoContext& io_;
  VmSpec spec_;
  Log& log_;
  MemoryMeter& meter_;
  capnp::MallocMessageBuilder original_;  // the configuration as it was given, for those who ask
  schema::VmConfig::Reader originalConfig_;
  OpenedResources resources_;
  // Settles the disks of a VM that goes without having ended: when its worker is gone, hence its place here.
  struct AbandonedDisks {
    Vm& vm;
    ~AbandonedDisks();
  } abandonedDisks_{*this};
  std::unique_ptr<counters::HostPage> counters_;
  std::vector<std::unique_ptr<Console>> consoles_;
  std::vector<Fd> consoleRemotes_;
  std::unique_ptr<WorkerProcess> worker_;
  std::unique_ptr<Vsock> vsock_;  // null: the configuration has no vsock device
  schema::Vm::Client vm_ = nullptr;
  std::vector<plugin::LaunchPlan::Device> devices_;
  std::chrono::milliseconds createTimeout_{0};
  Abilities abilities_{*this};
  std::uint64_t balloonTarget_ = 0;

  schema::VmState state_ = schema::VmState::PREPARING;
  std::int64_t startedUnixMs_ = 0;
  std::int64_t endedUnixMs_ = 0;
  bool ending_ = false;
  std::shared_ptr<Vm*> self_;  // null inside once this is gone
  // Set when nobody wants the copies of boot files any more that a thread makes.
  std::shared_ptr<std::atomic<bool>> bootFilesUnwanted_ = std::make_shared<std::atomic<bool>>(false);
  EventRate eventRate_;
  EventRate panicRate_;
  FewLines resetLines_;
  FewLines panicLines_;
  FewLines fullDiskLines_;
  Outcome outcome_;
  Timings timings_;
  std::list<Watcher> watchers_;
  std::optional<std::pair<kj::TimePoint, std::uint64_t>> measured_;  // the worker's private memory, and when
  bool isMeasuring_ = false;
  kj::Own<kj::PromiseFulfiller<std::uint64_t>> measurementGivenUp_;  // null until the first one
  kj::ForkedPromise<std::uint64_t> measurement_ = nullptr;
  bool isEndForced_ = false;
  kj::Own<kj::PromiseFulfiller<void>> endForced_;  // null unless an end waits for a measurement
  kj::Own<kj::PromiseFulfiller<void>> endedFulfiller_;
  kj::ForkedPromise<void> ended_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> consoleFulfiller_;
  kj::ForkedPromise<void> consoleReady_ = nullptr;
  kj::Promise<void> workerWatch_ = nullptr;
  kj::Promise<void> timeout_ = nullptr;
  kj::Promise<void> endTask_ = nullptr;
};

}  // namespace vmmhost::vm
