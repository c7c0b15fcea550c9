// A supervisor of 1.1 without a VM: knows schemas/host.capnp, Cap'n Proto, and what a supervisor does in the runtime
// and state folders, and nothing else of vmmhost.
//
//   supervisor RUNTIME_FOLDER STATE_FOLDER NAME [--minor N] [--lacks METHOD]...
//
// Holds the name's lock, writes its record and logs, serves its control and vsock sockets, says "ready" on standard
// output once it does, and goes when its VM has ended. A method that it lacks is answered as Cap'n Proto answers one
// that a server of an older schema does not have.
#include <capnp/rpc-twoparty.h>
#include <capnp/schema.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

#include "vmmhost/schema/host.capnp.h"

namespace {

using namespace vmmhost::schema;

constexpr char kSays[] = "a console of then\n";
constexpr std::int64_t kStartedUnixMs = 1700000000000;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "supervisor: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

void writeFile(const std::string& path, const std::string& content) {
  const kj::AutoCloseFd file(::open((path + ".new").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (file.get() < 0 || ::write(file.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size()) ||
      ::rename((path + ".new").c_str(), path.c_str()) != 0) {
    fail(path);
  }
}

// What it has in the two folders.
class Entry {
 public:
  Entry(std::string runtimeFolder, std::string stateFolder, const std::string& name)
      : runtime_(runtimeFolder + "/" + name), state_(stateFolder + "/" + name), name_(name) {
    if (::mkdir(runtime_.c_str(), 0700) != 0 || ::mkdir(state_.c_str(), 0700) != 0) {
      fail(runtime_ + ", " + state_);
    }
    const int lock = ::open((runtime_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock life = {};  // byte 0, for as long as this process lives
    life.l_type = F_WRLCK;
    life.l_whence = SEEK_SET;
    life.l_len = 1;
    if (lock < 0 || ::fcntl(lock, F_OFD_SETLK, &life) != 0) {
      fail(runtime_ + "/lock");
    }
    writeFile(runtime_ + "/record", "name=" + name + "\nbackend=old\nsupervisorPid=" + std::to_string(::getpid()) +
                                        "\nstartedUnixMs=" + std::to_string(kStartedUnixMs) + "\nremoveOnEnd=0\n");
    writeFile(state_ + "/console.log", kSays);
    writeFile(state_ + "/vmmhost.log", "a log of then\n");
  }

  kj::AutoCloseFd listen(const std::string& name) const {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string unready = runtime_ + "/." + name;
    std::strncpy(address.sun_path, unready.c_str(), sizeof(address.sun_path) - 1);
    kj::AutoCloseFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::fchmod(socket.get(), 0600) != 0 ||
        ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(socket.get(), 16) != 0 || ::rename(unready.c_str(), (runtime_ + "/" + name).c_str()) != 0) {
      fail(unready);
    }
    return socket;
  }

  void release(const std::string& exitJson) const {
    writeFile(state_ + "/exit.json", exitJson);
    for (const char* file : {"vsock", "control", "record", "lock"}) {
      ::unlink((runtime_ + "/" + file).c_str());
    }
    ::rmdir(runtime_.c_str());
  }

  const std::string& name() const { return name_; }
  std::string vsock() const { return runtime_ + "/vsock"; }

 private:
  std::string runtime_, state_, name_;
};

class FileDescriptor final : public Descriptor::Server {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  kj::Maybe<int> getFd() override { return fd_.get(); }

 private:
  kj::AutoCloseFd fd_;
};

// The VM that is none.
class Machine {
 public:
  explicit Machine(const Entry& entry) : entry_(entry) {
    auto ended = kj::newPromiseAndFulfiller<void>();
    end_ = kj::mv(ended.fulfiller);
    ended_ = ended.promise.fork();
  }

  VmState state = VmState::RUNNING;
  std::uint64_t balloon = 0;
  kj::Vector<StateSink::Client> sinks;

  kj::Promise<void> onEnded() { return ended_.addBranch(); }

  void become(VmState next, kj::StringPtr detail = "") {
    state = next;
    for (auto& sink : sinks) {
      auto request = sink.changedRequest();
      request.setState(next);
      request.setUnixMs(kStartedUnixMs + 1000);
      request.setDetail(detail);
      request.send().detach([](kj::Exception&&) {});
    }
  }

  void end(EndKind kind, EndCause cause, int exitCode, std::string detail) {
    if (state == VmState::ENDED) {
      return;
    }
    kind_ = kind;
    cause_ = cause;
    exitCode_ = exitCode;
    detail_ = std::move(detail);
    consoles_.clear();
    become(VmState::ENDED, detail_.c_str());
    end_->fulfill();
  }

  int console() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      fail("socketpair");
    }
    consoles_.add(kj::AutoCloseFd(ends[0]));
    static_cast<void>(!::write(ends[0], kSays, sizeof(kSays) - 1));
    return ends[1];
  }

  void describe(VmInfo::Builder info) const {
    info.setName(entry_.name());
    info.setBackend("old");
    info.setState(state);
    info.setSupervisorPid(::getpid());
    info.setStartedUnixMs(kStartedUnixMs);
    auto config = info.initConfig();
    config.setName(entry_.name());
    config.initMemory().setSize(64 << 20);
    auto abilities = info.initAbilities(2);
    abilities.set(0, "pause");
    abilities.set(1, "reset");
    auto counters = info.initCounters();
    counters.initNames(1).set(0, "vcpuExits");
    counters.initValues(1).set(0, 42);
    info.initJail(1).set(0, "none: this is no VM");
    info.setDetached(true);
    info.setVsockSocket(entry_.vsock());
  }

  void outcome(Outcome::Builder out) const {
    out.setKind(kind_);
    out.setCause(cause_);
    out.setExitCode(exitCode_);
    out.setDetail(detail_);
    out.getWorkerExit().setNone();
  }

  std::string exitJson() const {
    return std::string(R"({"name": ")") + entry_.name() + R"(", "backend": "old", "state": "ended", "outcome": )" +
           (kind_ == EndKind::GUEST ? R"({"kind": "guest", "cause": "powerOff", "exitCode": 0)"
                                    : R"({"kind": "stopped", "exitCode": 143)") +
           R"(, "detail": ")" + detail_ + R"("}})";
  }

 private:
  const Entry& entry_;
  kj::Own<kj::PromiseFulfiller<void>> end_;
  kj::ForkedPromise<void> ended_ = nullptr;
  kj::Vector<kj::AutoCloseFd> consoles_;
  EndKind kind_ = EndKind::GUEST;
  EndCause cause_ = EndCause::UNKNOWN;
  int exitCode_ = 0;
  std::string detail_;
};

struct Manners {
  unsigned minor = CONTROL_MINOR;
  std::set<std::string> lacks;
};

class OldControl final : public Control::Server {
 public:
  OldControl(Machine& machine, const Manners& manners) : machine_(machine), manners_(manners) {}

  DispatchCallResult dispatchCall(std::uint64_t interfaceId, std::uint16_t methodId,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    const auto methods = capnp::Schema::from<Control>().getMethods();
    if (methodId < methods.size() && manners_.lacks.count(methods[methodId].getProto().getName().cStr()) != 0) {
      return internalUnimplemented("host.capnp:Control", interfaceId, methodId);
    }
    return Control::Server::dispatchCall(interfaceId, methodId, context);
  }

  kj::Promise<void> hello(HelloContext context) override {
    context.getResults().setMajor(CONTROL_MAJOR);
    context.getResults().setMinor(manners_.minor);
    context.getResults().setBuild("vmmhost of then");
    return kj::READY_NOW;
  }
  kj::Promise<void> info(InfoContext context) override {
    machine_.describe(context.getResults().initInfo());
    return kj::READY_NOW;
  }
  kj::Promise<void> shutdown(ShutdownContext) override {
    machine_.end(EndKind::GUEST, EndCause::POWER_OFF, 0, "the guest powered off");
    return kj::READY_NOW;
  }
  kj::Promise<void> stop(StopContext context) override {
    machine_.end(context.getParams().getKind(), EndCause::UNKNOWN, 143, context.getParams().getReason().cStr());
    machine_.outcome(context.getResults().initOutcome());
    return kj::READY_NOW;
  }
  kj::Promise<void> pause(PauseContext) override {
    machine_.become(VmState::PAUSED);
    return kj::READY_NOW;
  }
  kj::Promise<void> resume(ResumeContext) override {
    machine_.become(VmState::RUNNING);
    return kj::READY_NOW;
  }
  kj::Promise<void> reset(ResetContext context) override {
    // An error, to see that it arrives whole.
    auto error = context.getResults().initError();
    error.setCode(ErrorCode::UNSUPPORTED);
    error.setMessage("backend old cannot reset");
    error.setHint("stop it and start it anew");
    return kj::READY_NOW;
  }
  kj::Promise<void> wait(WaitContext context) override {
    return machine_.onEnded().then([this, context]() mutable { machine_.outcome(context.getResults().initOutcome()); });
  }
  kj::Promise<void> console(ConsoleContext context) override {
    context.getResults().setStream(kj::heap<FileDescriptor>(machine_.console()));
    return kj::READY_NOW;
  }
  kj::Promise<void> watch(WatchContext context) override {
    machine_.sinks.add(context.getParams().getSink());
    return kj::READY_NOW;
  }
  kj::Promise<void> started(StartedContext context) override {
    machine_.describe(context.getResults().initInfo());
    return kj::READY_NOW;
  }
  kj::Promise<void> detach(DetachContext) override { return kj::READY_NOW; }
  kj::Promise<void> resizeConsole(ResizeConsoleContext) override { return kj::READY_NOW; }
  kj::Promise<void> setBalloon(SetBalloonContext context) override {
    machine_.balloon = context.getParams().getTarget();
    return kj::READY_NOW;
  }
  kj::Promise<void> balloon(BalloonContext context) override {
    context.getResults().setTarget(machine_.balloon);
    context.getResults().setActual(machine_.balloon);
    return kj::READY_NOW;
  }

 private:
  Machine& machine_;
  const Manners& manners_;
};

// A guest that accepts on each port and gives back what it hears.
class Guest final : private kj::TaskSet::ErrorHandler {
 public:
  explicit Guest(kj::Own<kj::ConnectionReceiver> listener) : listener_(kj::mv(listener)), tasks_(*this) {
    tasks_.add(serve());
  }

 private:
  kj::Promise<void> serve() {
    return listener_->accept().then([this](kj::Own<kj::AsyncIoStream> client) {
      tasks_.add(readLine(*client).then([&stream = *client]() { return echo(stream); }).attach(kj::mv(client)));
      return serve();
    });
  }
  static kj::Promise<void> readLine(kj::AsyncIoStream& stream) {
    auto byte = kj::heap<char>();
    auto read = stream.read(byte.get(), 1);
    return read.then([&stream, byte = kj::mv(byte)]() { return *byte == '\n' ? kj::READY_NOW : readLine(stream); });
  }
  static kj::Promise<void> echo(kj::AsyncIoStream& stream) {
    static constexpr char kOk[] = "OK 1024\n";
    return stream.write(kOk, sizeof(kOk) - 1)
        .then([&stream]() { return stream.pumpTo(stream); })
        .then([&stream](std::uint64_t) { stream.shutdownWrite(); });
  }
  void taskFailed(kj::Exception&&) override {}

  kj::Own<kj::ConnectionReceiver> listener_;
  kj::TaskSet tasks_;
};

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  Manners manners;
  for (int index = 4; index + 1 < argc; index += 2) {
    if (std::string(argv[index]) == "--minor") {
      manners.minor = static_cast<unsigned>(std::atoi(argv[index + 1]));
    } else {
      manners.lacks.insert(argv[index + 1]);
    }
  }
  if (argc < 4) {
    std::fprintf(stderr, "usage: supervisor RUNTIME_FOLDER STATE_FOLDER NAME [--minor N] [--lacks METHOD]...\n");
    return 2;
  }
  const Entry entry(argv[1], argv[2], argv[3]);
  auto io = kj::setupAsyncIo();
  Machine machine(entry);
  const Guest guest(io.lowLevelProvider->wrapListenSocketFd(entry.listen("vsock")));
  auto listener = io.lowLevelProvider->wrapListenSocketFd(entry.listen("control"));
  capnp::TwoPartyServer server(kj::heap<OldControl>(machine, manners));
  // With 0 descriptors to receive the library sends none either.
  auto serving = server.listenCapStreamReceiver(*listener, 1).eagerlyEvaluate(nullptr);
  std::printf("ready\n");
  std::fflush(stdout);
  machine.onEnded().wait(io.waitScope);
  entry.release(machine.exitJson());
  // Who waits has its answer once everything that is ready was done and they have gone, or a second later.
  serving = nullptr;
  listener = nullptr;
  server.drain().exclusiveJoin(io.provider->getTimer().afterDelay(1 * kj::SECONDS)).wait(io.waitScope);
  return 0;
}
