// One machine carried by one QEMU.
#pragma once

#include <kj/async-io.h>
#include <kj/function.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/machine_spec.h"
#include "vmmhost/fd.h"
#include "vmmhost/worker/worker.h"
#include "worker/command_line.h"
#include "worker/outcome.h"
#include "worker/qemu_process.h"
#include "worker/qmp_client.h"

namespace qemubackend {

// The open files of a machine.
struct MachineFiles {
  vmmhost::Fd kernel;
  vmmhost::Fd initrd;                 // empty: none
  std::vector<vmmhost::Fd> disks;     // as MachineSpec::disks
  std::vector<vmmhost::Fd> consoles;  // stream sockets, as MachineSpec::consoles
  std::vector<vmmhost::Fd> nics;      // TAP devices, as MachineSpec::nics; empty: attached to nothing
  vmmhost::Fd kvm;                    // /dev/kvm for accel=kvm
};

struct QemuOptions {
  std::string program = "/usr/bin/qemu-system-x86_64";
  std::vector<std::string> extraArguments;                                  // for tests
  std::function<void(const std::string&)> log = [](const std::string&) {};  // a line of QEMU's standard error
};

class QemuMachine final : public vmmhost::worker::Machine {
  struct Key {};

 public:
  // Starts QEMU with everything set up and no guest code running. Rejected with what QEMU said if it cannot.
  // `events` and `io` outlive the machine.
  static kj::Promise<std::unique_ptr<QemuMachine>> launch(const MachineSpec& spec, MachineFiles files,
                                                          QemuOptions options, vmmhost::worker::Events& events,
                                                          kj::AsyncIoContext& io);
  // For launch only.
  QemuMachine(Key, const MachineSpec& spec, std::unique_ptr<QemuProcess> process, vmmhost::Fd qmp, QemuOptions options,
              vmmhost::worker::Events& events, kj::AsyncIoContext& io);
  ~QemuMachine() noexcept override {}

  kj::Promise<void> start() override { return resume(); }
  bool canPause() const override { return true; }
  kj::Promise<void> pause() override;
  kj::Promise<void> resume() override;
  bool hasPowerButton() const override { return true; }
  kj::Promise<void> pressPowerButton() override;
  bool canReset() const override { return true; }
  kj::Promise<void> reset() override;
  bool hasBalloon() const override { return hasBalloon_; }
  kj::Promise<void> setBalloonTarget(std::uint64_t bytes) override;
  kj::Promise<std::uint64_t> balloonActual() override;

  pid_t qemuPid() const { return process_->pid(); }

 private:
  void onEvent(const QmpMessage& event);
  kj::Promise<void> watch();
  kj::Promise<void> readOutput();
  void takeOutputLine();
  void askWhyStopped();
  void watchdogRanOut();
  void noteFullDisk(std::uint32_t disk);
  kj::Promise<void> executeAll(std::vector<QmpCommand> commands);
  void killAfter(std::chrono::milliseconds grace);
  std::string lastLines() const;
  vmmhost::Error startFailure() const;
  // Requests run one after the other: a reset is several commands that no other may come between.
  kj::Promise<void> inOrder(kj::Function<kj::Promise<void>()> operation);
  kj::Promise<void> stopVirtualCpus();
  kj::Promise<void> runVirtualCpus();
  kj::Promise<void> resetStopped();

  const std::uint64_t memoryBytes_;  // as QEMU counts
  const bool hasBalloon_;
  const std::optional<WatchdogAction> watchdog_;
  std::vector<std::uint64_t> fullDisks_;  // how often there was no room for each
  QemuOptions options_;
  vmmhost::worker::Events& events_;
  kj::Timer& timer_;
  std::unique_ptr<QemuProcess> process_;
  OutcomeTracker outcome_;
  std::optional<Outcome> end_;  // once QEMU is gone
  std::deque<std::string> lastLines_;
  std::string line_;
  char outputBuffer_[2048];
  bool created_ = false;  // from then on the machine's end is an event
  bool running_ = false;  // as far as requests go
  QmpClient qmp_;
  kj::Own<kj::AsyncInputStream> output_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> resetSeen_;
  // Last, so that they are the first to go: they refer to the rest.
  kj::Promise<void> queue_ = kj::READY_NOW;
  kj::Promise<void> exitDeadline_ = kj::READY_NOW;
  kj::Promise<void> question_ = kj::READY_NOW;
  kj::Promise<void> watchdogTask_ = kj::READY_NOW;
  kj::ForkedPromise<void> gone_;
};

}  // namespace qemubackend
