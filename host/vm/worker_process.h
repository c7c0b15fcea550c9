// One worker process from spawn to death: started in its jail, greeted, looked at from outside, confirmed.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host/base/log.h"
#include "host/plugin/registry.h"
#include "ipc/rpc/connection.h"
#include "ipc/spawn/spawn.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::vm {

struct WorkerSpec {
  plugin::LaunchPlan plan;
  uid_t uid = 0;  // host ids of the worker
  gid_t gid = 0;
  std::vector<int> readable;  // see spawn::Jail
  std::vector<spawn::Jail::Rlimit> rlimits;
  std::set<std::string> without;
  int maxDescriptors = spawn::kMaxDescriptors;
  spawn::Cgroup* cgroup = nullptr;              // outlives the process; null: none
  std::function<void(const char* phase)> mark;  // for timings
};

class WorkerProcess {
 public:
  // Starts the process. Throws Error when that fails at once. The thread must outlive the object.
  WorkerProcess(kj::AsyncIoContext& io, WorkerSpec spec, Log& log);
  ~WorkerProcess();  // kills and reaps
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // Greets, verifies, confirms and verifies again. Rejected with the reason; the process is then of no use. Once.
  kj::Promise<void> handshake();
  // Looks at the confinement again, every thread. Throws kConfinement.
  void verify(bool afterConfirm);

  schema::Worker::Client worker() { return worker_; }
  pid_t pid() const { return child_.pid(); }
  std::uint16_t protocolMinor() const { return protocolMinor_; }  // as it said in its hello
  const std::vector<std::string>& verified() const { return verified_; }

  // Fulfilled when the process has ended and its log was read to the end. May be asked for repeatedly.
  kj::Promise<void> onExit() { return exited_.addBranch(); }
  // Fulfilled when the connection has been read to its end; at once before handshake().
  kj::Promise<void> onDisconnect() {
    return connection_ ? connection_->onDisconnect() : kj::Promise<void>(kj::READY_NOW);
  }
  // Only after onExit.
  spawn::Child::Exit exit() const { return exit_; }
  std::string describeExit() const;
  const std::deque<std::string>& lastLog() const { return lastLog_; }
  void kill() noexcept { child_.kill(); }

  // It answers nothing: a further call would only wait behind the others, in our memory.
  bool isStuck() const { return connection_ && connection_->unansweredCalls() >= rpc::Limits().maxOpenQuestions; }
  // A failed call on the worker as the error to report: that of a process that ended says how it ended.
  kj::Promise<Error> explain(kj::Exception exception);

 private:
  spawn::Child start(WorkerSpec& spec);
  kj::Promise<void> awaitExec();
  kj::Promise<void> awaitExit();
  kj::Promise<void> pumpLog();
  bool readLog();  // true: there may be more
  void logLine(std::string_view line);

  kj::AsyncIoContext& io_;
  WorkerSpec spec_;
  Log& log_;
  Fd logRead_;
  Fd rpcSocket_;
  spawn::Child child_;
  kj::UnixEventPort::FdObserver logObserver_;
  kj::UnixEventPort::FdObserver exitObserver_;
  kj::UnixEventPort::FdObserver statusObserver_;
  std::unique_ptr<rpc::Connection> connection_;
  schema::Worker::Client worker_ = nullptr;
  std::uint16_t protocolMinor_ = 0;
  std::string partialLine_;
  std::deque<std::string> lastLog_;
  std::uint64_t logBudget_ = 0;
  kj::TimePoint logBudgetSince_;
  std::uint64_t logDropped_ = 0;
  std::vector<std::string> verified_;
  spawn::Child::Exit exit_;
  bool hasExited_ = false;
  kj::Promise<void> logPump_ = nullptr;
  kj::ForkedPromise<void> exited_ = nullptr;
};

}  // namespace vmmhost::vm
