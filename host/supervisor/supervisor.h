// The host of one VM: reserves its name, chooses a backend, runs the VM, serves its control socket, keeps its records.
#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "host/control/control_server.h"
#include "host/launch/launcher.h"
#include "host/runtime/directories.h"
#include "host/runtime/state_room.h"
#include "host/vm/vm.h"

namespace vmmhost::supervisor {

class Supervisor final : public control::Target {
 public:
  Supervisor(kj::AsyncIoContext& io, schema::LaunchRequest::Reader request, Fd starter);
  ~Supervisor() noexcept override;

  // From the start to the point where the process may exit: the VM has ended, all is gone, answers are sent.
  kj::Promise<void> run();
  // A signal that asks the process to end: ends the VM.
  void signalled(int signal);
  int exitCode() { return outcome_.exitCode; }

  vm::Vm* vm() override { return vm_.get(); }
  kj::Promise<void> onConsole() override {
    return vmMade_.addBranch().then([this]() { return vm_->consoles().onReady(); });
  }
  kj::Promise<void> onStarted() override { return started_.addBranch(); }
  kj::Promise<void> onFinished() override { return finished_.addBranch(); }
  const vm::Outcome& outcome() override { return outcome_; }
  kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds within) override;
  void describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes) override;
  kj::Promise<void> stop(schema::EndKind kind, std::string reason, int signal) override;
  void starterDetached() override;
  void starterGone() override;

 private:
  void prepare();
  kj::Promise<void> chooseBackend();
  std::string backend() const;
  void makeVm();
  void finish();
  std::string exitJson();
  void keepRecord(const std::vector<std::string>& cgroups);

  kj::AsyncIoContext& io_;
  vm::MemoryMeter meter_;
  schema::LaunchRequest::Reader request_;
  std::unique_ptr<Log> log_;
  std::optional<runtime::Directories> directories_;
  std::optional<runtime::Reservation> reservation_;
  std::optional<runtime::UidLease> lease_;
  std::optional<launch::Launcher> launcher_;
  std::optional<runtime::StateBounds> stateBounds_;  // once there is a place for them
  std::string name_;                                 // empty until the configuration was looked at
  vm::Life::Timings early_;
  std::unique_ptr<vm::Vm> vm_;
  vm::Outcome outcome_;
  bool detached_ = false;
  bool startFailed_ = false;
  struct EndWish {  // asked for before there was a VM
    schema::EndKind kind;
    int signal;
    std::string reason;
  };
  std::optional<EndWish> endWanted_;
  kj::Own<kj::PromiseFulfiller<void>> choosingGivenUp_;  // null: nothing is being chosen
  kj::Own<kj::PromiseFulfiller<void>> vmMadeFulfiller_;
  kj::ForkedPromise<void> vmMade_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> starterLeftFulfiller_;
  kj::ForkedPromise<void> starterLeft_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> startedFulfiller_;
  kj::ForkedPromise<void> started_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> finishedFulfiller_;
  kj::ForkedPromise<void> finished_ = nullptr;
  std::unique_ptr<control::ControlServer> control_;  // goes first: its clients use all of the above
};

}  // namespace vmmhost::supervisor
