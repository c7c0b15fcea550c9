#include "host/jailed/jailed_process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace vmmhost::jailed {
namespace {

constexpr unsigned kMostExplained = 32;   // calls of its children: one that makes them without end is told of no more
constexpr auto kLeave = 1 * kj::SECONDS;  // between its socket's end and its own

std::string signalName(int number) {
  const char* name = ::sigabbrev_np(number);
  return name == nullptr ? std::to_string(number) : std::string("SIG") + name;
}

}  // namespace

JailedProcess::JailedProcess(kj::AsyncIoContext& io, Plan plan, Log& log)
    : io_(io),
      plan_(std::move(plan)),
      log_(log),
      child_(start()),
      logObserver_(io.unixEventPort, logRead_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      endObserver_(io.unixEventPort, child_.pidfd(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      statusObserver_(io.unixEventPort, child_.statusFd(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      processLog_(log, plan_.name, io.provider->getTimer().now()) {
  if (tracer_) {
    callObserver_ = kj::heap<kj::UnixEventPort::FdObserver>(io.unixEventPort, tracer_->descriptor(),
                                                            kj::UnixEventPort::FdObserver::OBSERVE_READ);
    callPump_ = pumpForbiddenCalls().eagerlyEvaluate(nullptr);
  }
  logPump_ = pumpLog().eagerlyEvaluate(nullptr);
  ended_ = awaitEnd().fork();
}

JailedProcess::~JailedProcess() = default;

spawn::Child JailedProcess::start() {
  if (plan_.group) {
    group_ = spawn::Cgroup::make(plan_.group->name, plan_.group->memoryBytes, plan_.group->maxProcesses,
                                 plan_.group->announce);
    if (!group_.why().empty()) {
      log_.write(Severity::kWarning, "cgroup",
                 "memory and processes of the " + plan_.name + " are not limited by a control group: " + group_.why());
    }
    plan_.jail.cgroupTasks = group_.tasksDescriptors();
    plan_.jail.cgroupFolder = group_.folderDescriptor();
  }
  rpc::SocketPair sockets = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
    throw systemError("making the log pipe of a " + plan_.name, errno);
  }
  logRead_.reset(pipe[0]);
  const Fd logWrite(pipe[1]);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) {
    throw systemError("/dev/null", errno);
  }
  socket_ = std::move(sockets.local);

  spawn::Request request;
  request.name = plan_.name;
  request.executable = plan_.executable.get();
  request.argv = plan_.argv;
  request.descriptors = {
      {null.get(), 0}, {null.get(), 1}, {logWrite.get(), 2}, {sockets.remote.get(), kSocketDescriptor}};
  for (const Passed& passed : plan_.descriptors) {
    request.descriptors.push_back({passed.source.get(), passed.target});
  }
  for (const Fd& program : plan_.programs) {
    request.programs.push_back(program.get());
  }
  request.rings = plan_.rings;
  request.epolls = plan_.epolls;
  request.jail = plan_.jail;
  if (plan_.explainsForbiddenCalls) {
    tracer_ = std::make_unique<CallTracer>();
    request.beforeStart = [this](pid_t process) { tracer_->follow(process); };
  }
  spawn::Child child = spawn::begin(request);
  for (Passed& passed : plan_.descriptors) {
    passed.source.reset();
  }
  plan_.programs.clear();
  return child;
}

void JailedProcess::tell(Phase phase) const {
  if (plan_.tell) {
    plan_.tell(phase);
  }
}

rpc::Connection& JailedProcess::connect(const rpc::Limits& limits, capnp::Capability::Client bootstrap) {
  maxUnansweredCalls_ = limits.maxOpenQuestions;
  connection_ = std::make_unique<rpc::Connection>(io_, takeSocket(), rpc::Side::kClient, limits, kj::mv(bootstrap));
  return *connection_;
}

kj::Promise<void> JailedProcess::awaitExec() {
  auto readable = statusObserver_.whenBecomesReadable();
  if (child_.executed()) {
    return kj::READY_NOW;
  }
  return readable.then(rpc::guarded([this]() { return awaitExec(); }));
}

kj::Promise<void> JailedProcess::confine(kj::Promise<void> greeted, kj::Function<kj::Promise<void>()> tighten) {
  auto& timer = io_.provider->getTimer();
  auto verified = kj::evalNow(rpc::guarded([this]() { return awaitExec(); }))
                      .then([this, greeted = kj::mv(greeted)]() mutable {
                        tell(Phase::kExecuted);
                        return kj::mv(greeted);
                      })
                      .then(rpc::guarded([this]() {
                        tell(Phase::kGreeted);
                        verify(false);
                        tell(Phase::kVerified);
                      }));
  return rpc::withDeadline(timer, plan_.deadline, "the " + plan_.name + "'s hello", kj::mv(verified))
      .then(rpc::guarded([this, &timer, tighten = kj::mv(tighten)]() mutable {
        return rpc::withDeadline<void>(timer, plan_.deadline, "the " + plan_.name + "'s tightening of its jail",
                                       tighten().then(rpc::guarded([this]() {
                                         verify(true);
                                         tell(Phase::kConfined);
                                       })));
      }));
}

confinement::Expectation JailedProcess::expectation(bool isTight) const {
  confinement::Expectation expected = child_.expectation();
  expected.hostNamespaces = hostNamespaces_;
  if (isTight) {
    expected.nonDumpable = true;
    expected.descriptors.reset();
  }
  return expected;
}

void JailedProcess::verify(bool isTight) {
  confinement::Report report = confinement::verify(expectation(isTight));
  if (!report.violations.empty()) {
    kill();
    for (const std::string& violation : report.violations) {
      log_.write(Severity::kError, "confinement", violation);
    }
    throw Error(ErrorCode::kConfinement,
                "the " + plan_.name + " is not confined as " + plan_.declaredBy + ": " + report.violations.front(),
                plan_.unconfinedHint);
  }
  verified_ = std::move(report.verified);
  verified_.push_back("seccomp policy: " + (plan_.policy.empty() ? plan_.jail.seccompPolicy.describe() : plan_.policy));
}

kj::Promise<void> JailedProcess::pumpLog() {
  auto readable = logObserver_.whenBecomesReadable();
  if (readLog()) {
    return io_.provider->getTimer().afterDelay(0 * kj::NANOSECONDS).then([this]() { return pumpLog(); });
  }
  return readable.then([this]() { return pumpLog(); });
}

bool JailedProcess::readLog() {
  char buffer[16 * 1024];
  // A process that writes without end gets its turn only so often: the rest waits in the pipe.
  for (int round = 0; round < 8; ++round) {
    const ssize_t got = ::read(logRead_.get(), buffer, sizeof(buffer));
    if (got <= 0) {
      return false;
    }
    processLog_.add({buffer, static_cast<std::size_t>(got)}, io_.provider->getTimer().now());
  }
  return true;
}

kj::Promise<void> JailedProcess::awaitEnd() {
  auto readable = endObserver_.whenBecomesReadable();
  if (const auto exit = child_.reap()) {
    callPump_ = nullptr;
    noteForbiddenCalls();
    logPump_ = nullptr;
    readLog();  // what it wrote last; the pipe has no other writer once the PID namespace is gone
    processLog_.finish(io_.provider->getTimer().now());
    return noteEnd(*exit);
  }
  return readable.then([this]() { return awaitEnd(); });
}

kj::Promise<void> JailedProcess::noteEnd(spawn::Child::Exit exit) {
  const End end{exit, group_.outOfMemory(), std::nullopt};
  if (exit.kind != spawn::Child::Exit::Kind::kSignal || exit.value != SIGSYS || isOwnExplanation_) {
    end_ = end;
    return kj::READY_NOW;
  }
  return kernelLog_.find(io_.provider->getTimer(), child_.pid(), plan_.kernelLogPatience.count() * kj::MILLISECONDS)
      .then([this, end](std::optional<ForbiddenCall> forbidden) {
        end_ = End{end.exit, end.isOutOfMemory, forbidden};
      });
}

kj::Promise<void> JailedProcess::pumpForbiddenCalls() {
  auto readable = callObserver_->whenBecomesReadable();
  noteForbiddenCalls();
  return readable.then([this]() { return pumpForbiddenCalls(); });
}

void JailedProcess::noteForbiddenCalls() {
  if (!tracer_) {
    return;
  }
  const spawn::Jail& jail = plan_.jail;
  seccomp::BaseParameters parameters;  // but for its one executable, which is spent
  parameters.rings = plan_.rings;
  parameters.makesMemoryFiles = jail.makesMemoryFiles;
  parameters.makesEpolls = jail.makesEpolls;
  parameters.hasProc = jail.proc;
  for (const TracedCall& call : tracer_->take()) {
    const bool isOwn = call.process == child_.pid();
    if (!isOwn && ++explained_ > kMostExplained) {
      continue;
    }
    const std::string text = jailed::explain(call, jail.seccompPolicy, parameters);
    log_.write(Severity::kError, "jail", "a filter ended " + text);
    // A call that even the policy of its start forbids is beyond doubt; of others a thread that ended with the rest may
    // look as if it had made one.
    const unsigned rank = 1 + (isOwn ? 2 : 0) + (isForbidden(call, jail.seccompPolicy, parameters) ? 1 : 0);
    if (rank >= explanationRank_) {
      explanationRank_ = rank;
      explanation_ = text;
      isOwnExplanation_ = isOwn;
    }
  }
}

std::string JailedProcess::describeEnd() const {
  const spawn::Child::Exit exit = end_ ? end_->exit : spawn::Child::Exit();
  // Of one that went on without a process of its own that was ended, it may be what it died of.
  const std::string explanation =
      explanation_.empty() ? "" : (isOwnExplanation_ ? ": " : "; before that a filter ended ") + explanation_;
  switch (exit.kind) {
    case spawn::Child::Exit::Kind::kCode:
      return "the " + plan_.name + " exited with code " + std::to_string(exit.value) + explanation;
    case spawn::Child::Exit::Kind::kSignal:
      return "the " + plan_.name + " was ended by " + signalName(exit.value) +
             (exit.value == SIGSYS ? " (a system call that its jail forbids)" : "") +
             (end_->forbidden ? ": " + describe(*end_->forbidden) : "") + explanation;
    case spawn::Child::Exit::Kind::kUnknown:
      break;
  }
  return "the " + plan_.name + " ended, cause unknown";
}

Error JailedProcess::died(std::string message) const {
  if (end_ ? end_->isOutOfMemory : group_.outOfMemory()) {
    message += "; its control group was out of memory";
  }
  const bool isForbiddenCall =
      end_ && end_->exit.kind == spawn::Child::Exit::Kind::kSignal && end_->exit.value == SIGSYS;
  return Error(ErrorCode::kWorkerDied, std::move(message),
               isForbiddenCall && !tracer_ ? plan_.forbiddenCallHint : std::string());
}

kj::Promise<Error> JailedProcess::explain(kj::Exception exception) {
  const Error error = rpc::fromKj(exception);
  if (exception.getType() != kj::Exception::Type::DISCONNECTED) {
    return error;
  }
  if (connection_ && !connection_->violation().empty()) {
    return Error(ErrorCode::kProtocol, "the " + plan_.name + " sent " + connection_->violation());
  }
  // The socket closes a moment before the process is gone.
  auto gone = onEnd().then(
      [this]() { return died(describeEnd() + (lastLog().empty() ? "" : "; it said last: " + lastLog().back())); });
  auto late = io_.provider->getTimer().afterDelay(kLeave).then(
      [this]() { return died("the " + plan_.name + " closed its connection but did not end"); });
  return gone.exclusiveJoin(kj::mv(late));
}

}  // namespace vmmhost::jailed
