// One process in a jail, from spawn to end: started in control groups of its own, looked at from outside before and
// after it has tightened its jail, its log read, its end told. It knows neither VMs nor what is spoken with the
// process.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/function.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/base/log.h"
#include "host/jailed/call_tracer.h"
#include "host/jailed/kernel_log.h"
#include "host/jailed/process_log.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/confinement.h"
#include "vmmhost/fd.h"

namespace vmmhost::jailed {

// Descriptors 0 and 1 of a jailed process are /dev/null and 2 is its log. This is its end of a socket pair whose other
// end is ours: connect() or takeSocket(). Both are non-blocking, since a filter lets it change no flags.
inline constexpr int kSocketDescriptor = 3;

struct Passed {
  Fd source;   // closed here once the process is on its way
  int target;  // its number there, from 4 on, behind rings and instances of epoll; see spawn::Passed
};

// Control groups of the process alone, see spawn::Cgroup::make.
struct Group {
  std::string name;
  std::uint64_t memoryBytes = 0;
  std::uint32_t maxProcesses = 0;
  spawn::Cgroup::Announce announce;
};

enum class Phase { kExecuted, kGreeted, kVerified, kConfined };

// What a process of ours is to be. It comes from the host's own code: what others propose is checked before.
struct Plan {
  std::string name =
      "process";  // in messages ("the worker exited with code 1"), and the component of its log's records
  std::string declaredBy = "planned";  // ends "the worker is not confined as "
  std::string unconfinedHint;          // of that error
  // What its filter is, in words, for verified(): which filter it is cannot be seen from outside.
  std::string policy;
  Fd executable;  // opened O_RDONLY or O_PATH
  std::vector<std::string> argv;
  spawn::Jail jail;  // but for its control groups: `group`
  std::vector<Passed> descriptors;
  std::vector<Fd> programs;  // closed here as well; this and the next two as spawn::Request has them
  unsigned rings = 0;
  unsigned epolls = 0;
  // A call that a filter ends it for is looked at before it ends: its log and the error of its end tell of it
  // (CallTracer). Where that cannot be had, the process is not started (kUnavailable).
  bool explainsForbiddenCalls = false;
  std::string forbiddenCallHint;             // of the error of such an end, where nothing is explained
  std::optional<Group> group;                // none: limited by none
  std::chrono::milliseconds deadline{5000};  // for each of the two halves of confine()
  std::function<void(Phase)> tell;           // of each phase, once; may be empty
  // How long the end of one that its filter ended waits for the kernel to write down the call.
  std::chrono::milliseconds kernelLogPatience{20};
};

// One thread, the one of `io`, which must outlive the object: its end is the process's end.
class JailedProcess {
 public:
  // Starts the process. Throws Error when that fails at once. `log` outlives it.
  JailedProcess(kj::AsyncIoContext& io, Plan plan, Log& log);
  // Kills and reaps what lives, and removes the control groups.
  ~JailedProcess();
  JailedProcess(const JailedProcess&) = delete;
  JailedProcess& operator=(const JailedProcess&) = delete;

  // Our end of the socket, by one of these, once. What is sent before the process runs waits in the socket.
  rpc::Connection& connect(const rpc::Limits& limits, capnp::Capability::Client bootstrap = nullptr);
  Fd takeSocket() { return std::move(socket_); }

  // Waits for exec, then for `greeted`, looks at the process, has it tighten its jail by `tighten`, and looks again;
  // both are of whatever is spoken with it. Rejected with the reason (kConfinement, kDeadlineExceeded, what the two
  // say); the process is of no use then. Once.
  kj::Promise<void> confine(kj::Promise<void> greeted, kj::Function<kj::Promise<void>()> tighten);
  // Looks at it, every thread and child. Throws kConfinement, and has killed it then. `isTight`: it is past `tighten`.
  void verify(bool isTight);
  // What the last look found as it should be, one line a part.
  const std::vector<std::string>& verified() const { return verified_; }

  pid_t pid() const { return child_.pid(); }
  void kill() noexcept { child_.kill(); }
  // Why it is not limited by the control groups of its plan; empty if it is, or if the plan has none.
  const std::string& groupFault() const { return group_.why(); }
  // Removes its control groups; to be called once it has ended, for whom the destructor is too late.
  void removeGroup() noexcept { group_.remove(); }

  struct End {
    spawn::Child::Exit exit;
    bool isOutOfMemory = false;              // the kernel killed something in its control groups for want of memory
    std::optional<ForbiddenCall> forbidden;  // what its filter ended it for, where the kernel's log tells
  };
  // Fulfilled, once, when the process has ended and its log was read to the end. May be asked for repeatedly.
  kj::Promise<void> onEnd() { return ended_.addBranch(); }
  const std::optional<End>& end() const { return end_; }  // nothing while it lives
  std::string describeEnd() const;                        // "the worker was ended by SIGKILL"; once it has
  const std::deque<std::string>& lastLog() const { return processLog_.last(); }

  // Fulfilled when the connection has been read to its end; at once before connect().
  kj::Promise<void> onDisconnect() {
    return connection_ ? connection_->onDisconnect() : kj::Promise<void>(kj::READY_NOW);
  }
  // It answers nothing: a further call would only wait behind the others, in our memory.
  bool isStuck() const { return connection_ && connection_->unansweredCalls() >= maxUnansweredCalls_; }
  // A failed call on the process as the error to report: that of one that ended says how it ended (kWorkerDied).
  kj::Promise<Error> explain(kj::Exception exception);

 private:
  spawn::Child start();
  kj::Promise<void> awaitExec();
  kj::Promise<void> awaitEnd();
  kj::Promise<void> noteEnd(spawn::Child::Exit exit);
  kj::Promise<void> pumpLog();
  bool readLog();  // true: there may be more
  confinement::Expectation expectation(bool isTight) const;
  void noteForbiddenCalls();
  kj::Promise<void> pumpForbiddenCalls();
  Error died(std::string message) const;
  void tell(Phase phase) const;

  kj::AsyncIoContext& io_;
  Plan plan_;
  Log& log_;
  const confinement::Namespaces hostNamespaces_ = confinement::hostNamespaces();
  KernelLog kernelLog_ = KernelLog::open();
  Fd logRead_;
  Fd socket_;
  spawn::Cgroup group_;
  std::unique_ptr<CallTracer> tracer_;  // behind the child: it lasts until that has ended
  spawn::Child child_;
  kj::UnixEventPort::FdObserver logObserver_;
  kj::UnixEventPort::FdObserver endObserver_;
  kj::UnixEventPort::FdObserver statusObserver_;
  ProcessLog processLog_;
  std::unique_ptr<rpc::Connection> connection_;
  std::size_t maxUnansweredCalls_ = 0;
  std::vector<std::string> verified_;
  std::string explanation_;        // of a call that a filter ended it for, or else one of its processes
  bool isOwnExplanation_ = false;  // of its own call
  unsigned explanationRank_ = 0;   // the higher, the surer that it tells of the end
  unsigned explained_ = 0;         // calls of its processes
  std::optional<End> end_;
  kj::Own<kj::UnixEventPort::FdObserver> callObserver_;
  kj::Promise<void> callPump_ = nullptr;
  kj::Promise<void> logPump_ = nullptr;
  kj::ForkedPromise<void> ended_ = nullptr;
};

}  // namespace vmmhost::jailed
