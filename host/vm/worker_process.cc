#include "host/vm/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "host/base/build_info.h"
#include "ipc/spawn/libraries.h"
#include "vmmhost/confinement.h"
#include "vmmhost/rings.h"

namespace vmmhost::vm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxLine = 4096;
constexpr std::size_t kKeptLines = 20;
constexpr std::uint64_t kLogBytesPerSecond = 64 * 1024;

constexpr int kRpcDescriptor = 3;
constexpr std::string_view kDynamicPolicy = "worker-dynamic";

std::string signalName(int number) {
  const char* name = ::sigabbrev_np(number);
  return name == nullptr ? std::to_string(number) : std::string("SIG") + name;
}

std::string describePolicy(const plugin::LaunchPlan& plan) {
  if (plan.hasOldPolicy) {
    return plan.seccompPolicy +
           ", OLD: as for plugins built for version 1.1 of the interface, whose workers also make "
           "files of memory and instances of epoll that no limit counts";
  }
  return plan.seccompPolicy + (plan.epolls > 0 ? ", with " + std::to_string(plan.epolls) + " instances of epoll"
                                               : ", making instances of epoll with few descriptors");
}

}  // namespace

WorkerProcess::WorkerProcess(kj::AsyncIoContext& io, WorkerSpec spec, Log& log)
    : io_(io),
      spec_(std::move(spec)),
      log_(log),
      child_(start(spec_)),
      logObserver_(io.unixEventPort, logRead_.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      exitObserver_(io.unixEventPort, child_.pidfd(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      statusObserver_(io.unixEventPort, child_.statusFd(), kj::UnixEventPort::FdObserver::OBSERVE_READ),
      logBudgetSince_(io.provider->getTimer().now()) {
  logPump_ = pumpLog().eagerlyEvaluate(nullptr);
  exited_ = awaitExit().fork();
}

WorkerProcess::~WorkerProcess() = default;

spawn::Child WorkerProcess::start(WorkerSpec& spec) {
  rpc::SocketPair sockets = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
    throw systemError("making the log pipe of a worker", errno);
  }
  logRead_.reset(pipe[0]);
  const Fd logWrite(pipe[1]);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) {
    throw systemError("/dev/null", errno);
  }
  rpcSocket_ = std::move(sockets.local);

  spawn::Request request;
  request.executable = spec.plan.worker.get();
  request.argv = spec.plan.argv;
  request.descriptors = {{null.get(), 0}, {null.get(), 1}, {logWrite.get(), 2}, {sockets.remote.get(), kRpcDescriptor}};
  request.rings = spec.plan.rings;
  request.epolls = spec.plan.epolls;
  spawn::Jail& jail = request.jail;
  if (spec.plan.root == plugin::LaunchPlan::Root::kSystem && spec.plan.seccompPolicy == kDynamicPolicy) {
    // What its executable is made of, and no programs: see addExecutable() of ipc/seccomp.
    const spawn::Libraries libraries = spawn::librariesOf(spec.plan.worker.get());
    std::vector<std::string> targets;
    for (const auto& bind : spec.plan.binds) {
      targets.push_back(bind.target);
    }
    for (const std::string& file : spawn::filesBesides(targets, libraries.files)) {
      spec.plan.binds.push_back({file, file});
    }
    jail.root = spawn::Jail::Root::kBinds;
    jail.loader = libraries.loader;
  } else if (spec.plan.root == plugin::LaunchPlan::Root::kSystem) {
    jail.root = spawn::Jail::Root::kSystem;
  }
  jail.proc = spec.plan.proc;
  jail.dev = spec.plan.dev;
  jail.tmp = spec.plan.tmp;
  for (const auto& bind : spec.plan.binds) {
    jail.binds.push_back({bind.source, bind.target});
  }
  jail.seccompPolicy = spec.plan.seccompPolicy;
  jail.makesMemoryFiles = spec.plan.hasOldPolicy;
  jail.makesEpolls = spec.plan.hasOldPolicy || spec.plan.epolls == 0;
  jail.uid = spec.uid;
  jail.gid = spec.gid;
  jail.readable = spec.readable;
  jail.rlimits = spec.rlimits;
  jail.without = spec.without;
  jail.maxDescriptors = spec.maxDescriptors;
  jail.neededDescriptors = static_cast<int>(spec.plan.maxDescriptors);
  if (spec.cgroup != nullptr) {
    jail.cgroupTasks = spec.cgroup->tasksDescriptors();
    jail.cgroupFolder = spec.cgroup->folderDescriptor();
  }
  return spawn::begin(request);
}

kj::Promise<void> WorkerProcess::awaitExec() {
  auto readable = statusObserver_.whenBecomesReadable();
  if (child_.executed()) {
    return kj::READY_NOW;
  }
  return readable.then(rpc::guarded([this]() { return awaitExec(); }));
}

kj::Promise<void> WorkerProcess::awaitExit() {
  auto readable = exitObserver_.whenBecomesReadable();
  if (const auto exit = child_.reap()) {
    exit_ = *exit;
    hasExited_ = true;
    logPump_ = nullptr;
    readLog();  // what it wrote last; the pipe has no other writer once the PID namespace is gone
    if (!partialLine_.empty()) {
      logLine(std::exchange(partialLine_, {}));
    }
    return kj::READY_NOW;
  }
  return readable.then([this]() { return awaitExit(); });
}

kj::Promise<void> WorkerProcess::pumpLog() {
  auto readable = logObserver_.whenBecomesReadable();
  if (readLog()) {
    return io_.provider->getTimer().afterDelay(0 * kj::NANOSECONDS).then([this]() { return pumpLog(); });
  }
  return readable.then([this]() { return pumpLog(); });
}

bool WorkerProcess::readLog() {
  char buffer[16 * 1024];
  // A worker that writes without end gets its turn only so often: the rest waits in the pipe.
  for (int round = 0; round < 8; ++round) {
    const ssize_t got = ::read(logRead_.get(), buffer, sizeof(buffer));
    if (got <= 0) {
      return false;
    }
    std::string_view rest(buffer, static_cast<std::size_t>(got));
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      partialLine_ += rest.substr(0, std::min(end, kMaxLine - std::min(kMaxLine, partialLine_.size())));
      if (end == std::string_view::npos) {
        break;
      }
      logLine(std::exchange(partialLine_, {}));
      rest.remove_prefix(end + 1);
    }
  }
  return true;
}

void WorkerProcess::logLine(std::string_view line) {
  Severity severity = Severity::kInfo;
  if (line.size() >= 2 && line[1] == ' ') {
    switch (line[0]) {
      case 'D':
        severity = Severity::kDebug;
        break;
      case 'W':
        severity = Severity::kWarning;
        break;
      case 'E':
        severity = Severity::kError;
        break;
      default:
        break;
    }
    if (std::strchr("DIWE", line[0]) != nullptr) {
      line.remove_prefix(2);
    }
  }
  lastLog_.push_back(escapeControl(line, kMaxLine));
  if (lastLog_.size() > kKeptLines) {
    lastLog_.pop_front();
  }
  const kj::TimePoint now = io_.provider->getTimer().now();
  if (now - logBudgetSince_ >= 1 * kj::SECONDS) {
    logBudgetSince_ = now;
    logBudget_ = 0;
    if (logDropped_ > 0) {
      log_.write(Severity::kWarning, "worker", std::to_string(std::exchange(logDropped_, 0)) + " log lines dropped");
    }
  }
  logBudget_ += line.size() + 1;
  if (logBudget_ > kLogBytesPerSecond) {
    ++logDropped_;
    return;
  }
  log_.write(severity, "worker", line);
}

void WorkerProcess::verify(bool afterConfirm) {
  confinement::Expectation expected;
  expected.pid = child_.pid();
  expected.hostUid = spec_.uid;
  expected.hostGid = spec_.gid;
  struct stat info = {};
  if (::fstat(spec_.plan.worker.get(), &info) == 0) {
    expected.executableDevice = info.st_dev;
    expected.executableInode = info.st_ino;
  }
  for (const char* name : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    const std::string part = std::string(name) + "-namespace";
    if (spec_.without.count(part) == 0) {
      expected.newNamespaces.push_back(name);
    }
  }
  const bool hasSystem =
      spec_.plan.root == plugin::LaunchPlan::Root::kSystem && spec_.plan.seccompPolicy != kDynamicPolicy;
  for (const auto& mount : spawn::expectedMounts(hasSystem, spec_.plan.proc, spec_.plan.dev, spec_.plan.tmp)) {
    expected.mounts.push_back({mount.target, {}, mount.readOnly});
  }
  for (const auto& bind : spec_.plan.binds) {
    expected.mounts.push_back({bind.target, {}, true});
  }
  expected.nonDumpable = afterConfirm;
  if (!afterConfirm) {
    expected.descriptors = {{0, 1, 2, kRpcDescriptor}};
    expected.eventDescriptorsAllowed = true;
    expected.firstRing = rings::kFirstDescriptor;
    expected.rings = spec_.plan.rings;
  }
  expected.includeDescendants = true;
  confinement::Report report = confinement::verify(expected);
  if (!report.violations.empty()) {
    for (const std::string& violation : report.violations) {
      log_.write(Severity::kError, "confinement", violation);
    }
    throw Error(ErrorCode::kConfinement,
                "the worker is not confined as its backend declared: " + report.violations.front(),
                "this is a fault of the backend or of this system; nothing of the VM was sent to the worker");
  }
  verified_ = std::move(report.verified);
  verified_.push_back("seccomp policy: " + describePolicy(spec_.plan));
}

kj::Promise<void> WorkerProcess::handshake() {
  connection_ = std::make_unique<rpc::Connection>(io_, std::move(rpcSocket_), rpc::Side::kClient, rpc::Limits());
  worker_ = connection_->bootstrap<schema::Worker>();
  auto request = worker_.helloRequest();
  auto host = request.initHost();
  host.setProtocolMajor(schema::PROTOCOL_MAJOR);
  host.setProtocolMinor(schema::PROTOCOL_MINOR);
  host.setBuild(kj::StringPtr(kBuild.data(), kBuild.size()));
  // Sent before the worker runs: it waits in the socket, and saves a turn.
  auto hello = request.send();
  auto& timer = io_.provider->getTimer();
  auto greeted = awaitExec()
                     .then([this, hello = kj::mv(hello)]() mutable {
                       spec_.mark("worker-exec");
                       return kj::mv(hello);
                     })
                     .then(rpc::guarded([this](auto&& response) {
                       rpc::throwIfError(response);
                       const auto worker = response.getWorker();
                       if (worker.getProtocolMajor() != schema::PROTOCOL_MAJOR) {
                         throw Error(ErrorCode::kProtocol,
                                     "the worker speaks protocol " + std::to_string(worker.getProtocolMajor()) +
                                         ", this host " + std::to_string(schema::PROTOCOL_MAJOR),
                                     "install a backend of the same major version");
                       }
                       protocolMinor_ = worker.getProtocolMinor();
                       spec_.mark("worker-hello");
                       verify(false);
                       spec_.mark("verified");
                     }));
  return rpc::withDeadline(timer, spec_.plan.helloTimeout, "the worker's hello", kj::mv(greeted))
      .then([this, &timer]() {
        return rpc::withDeadline<void>(timer, spec_.plan.helloTimeout, "the worker's tightening of its jail",
                                       worker_.confirmRequest().send().then(rpc::guarded([this](auto&& response) {
                                         rpc::throwIfError(response);
                                         verify(true);
                                         spec_.mark("confined");
                                       })));
      });
}

std::string WorkerProcess::describeExit() const {
  switch (exit_.kind) {
    case spawn::Child::Exit::Kind::kCode:
      return "the worker exited with code " + std::to_string(exit_.value);
    case spawn::Child::Exit::Kind::kSignal:
      return "the worker was ended by " + signalName(exit_.value) +
             (exit_.value == SIGSYS ? " (a system call that its jail forbids)" : "");
    case spawn::Child::Exit::Kind::kUnknown:
      break;
  }
  return "the worker ended, cause unknown";
}

kj::Promise<Error> WorkerProcess::explain(kj::Exception exception) {
  const Error error = rpc::fromKj(exception);
  if (exception.getType() != kj::Exception::Type::DISCONNECTED) {
    return error;
  }
  if (connection_ && !connection_->violation().empty()) {
    return Error(ErrorCode::kProtocol, "the worker sent " + connection_->violation());
  }
  // The socket closes a moment before the process is gone.
  auto& timer = io_.provider->getTimer();
  auto gone = onExit().then([this]() {
    std::string message = describeExit();
    if (!lastLog_.empty()) {
      message += "; it said last: " + lastLog_.back();
    }
    return Error(ErrorCode::kWorkerDied, message);
  });
  auto late = timer.afterDelay(1 * kj::SECONDS).then([]() {
    return Error(ErrorCode::kWorkerDied, "the worker closed its connection but did not end");
  });
  return gone.exclusiveJoin(kj::mv(late));
}

}  // namespace vmmhost::vm
