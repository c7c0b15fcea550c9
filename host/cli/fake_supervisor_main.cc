// Stands for vmmhost-supervisor in tests of the command: a VM without a VM. The kernel's path in the request says what
// it does:
//   hello     says hello on its console and powers off
//   echo      gives back what is typed, until a line "quit" powers it off; "panic" panics it
//   flood     says a million bytes and powers off
//   missing   cannot start: kNotFound       unusable  cannot start: kUnavailable
//   dies      as echo, but "die" ends it by SIGKILL
//   silent    never says that it has started
//   stays     as echo, but stop is never answered
// It reports to the file that VMMHOST_TEST_REPORT names.
#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <kj/async-unix.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "host/client/launch.h"
#include "ipc/rpc/answer.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost {
namespace {

void reportLine(const std::string& line) {
  if (const char* path = ::getenv("VMMHOST_TEST_REPORT")) {
    const Fd file(::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    static_cast<void>(!::write(file.get(), (line + "\n").c_str(), line.size() + 1));
  }
}

class Machine {
 public:
  Machine(kj::AsyncIoContext& io, schema::LaunchRequest::Reader request)
      : request_(request),
        console_(rpc::makeSocketPair()),
        ended_(kj::newPromiseAndFulfiller<void>()),
        endPromise_(ended_.promise.fork()) {
    ::fcntl(console_.remote.get(), F_SETFL, O_NONBLOCK);
    observer_ = kj::heap<kj::UnixEventPort::FdObserver>(io.unixEventPort, console_.local.get(),
                                                        kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE);
  }

  std::string what() const { return request_.getConfig().getBoot().getKernel().getPath(); }
  kj::Promise<void> onEnded() { return endPromise_.addBranch(); }

  void begin() {
    if (what() == "missing") {
      throw Error(ErrorCode::kNotFound, "boot.kernel: there is no file missing", "look again");
    }
    if (what() == "unusable") {
      throw Error(ErrorCode::kUnavailable, "backend fake cannot be used here");
    }
    if (what() == "flood") {
      output_ = std::string(1000000, 'x') + "\n";
      task_ = flush()
                  .then([this]() { end(schema::EndKind::GUEST, schema::EndCause::POWER_OFF, 0); })
                  .eagerlyEvaluate(nullptr);
    } else {
      output_ = "hello from " + std::string(request_.getBackend().cStr()) + "\r\n";
      task_ = flush()
                  .then([this]() -> kj::Promise<void> {
                    if (what() == "hello") {
                      end(schema::EndKind::GUEST, schema::EndCause::POWER_OFF, 0);
                      return kj::READY_NOW;
                    }
                    return echo();
                  })
                  .eagerlyEvaluate(nullptr);
    }
  }

  void end(schema::EndKind kind, schema::EndCause cause, int exitCode) {
    kind_ = kind;
    cause_ = cause;
    exitCode_ = exitCode;
    console_.local.reset();
    ended_.fulfiller->fulfill();
  }

  Fd takeConsole() { return std::move(console_.remote); }

  void describe(schema::VmInfo::Builder info) {
    info.setName(request_.getConfig().getName().size() == 0 ? "made-up" : request_.getConfig().getName());
    info.setBackend("fake");
    info.setState(schema::VmState::RUNNING);
    info.setSupervisorPid(::getpid());
    info.setChoice(request_.getBackend() == "auto" ? "fake: chosen because it is the only one" : "");
    auto timings = info.initTimings(1);
    timings[0].setPhase("worker started");
    timings[0].setNs(request_.getClientStartNs() + 5000000);
  }
  void outcome(schema::Outcome::Builder out) {
    out.setKind(kind_);
    out.setCause(cause_);
    out.setExitCode(exitCode_);
  }

 private:
  kj::Promise<void> flush() {
    while (!output_.empty()) {
      const ssize_t sent = ::send(console_.local.get(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) {
        return observer_->whenBecomesWritable().then([this]() { return flush(); });
      }
      output_.erase(0, static_cast<std::size_t>(sent));
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> echo() {
    char buffer[4096];
    const ssize_t got = ::recv(console_.local.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got == 0) {
      return kj::READY_NOW;
    }
    if (got < 0) {
      return observer_->whenBecomesReadable().then([this]() { return echo(); });
    }
    typed_.append(buffer, static_cast<std::size_t>(got));
    if (what() == "dies" && typed_.find("die") != std::string::npos) {
      ::raise(SIGKILL);
    }
    output_.assign(buffer, static_cast<std::size_t>(got));
    return flush().then([this]() -> kj::Promise<void> {
      if (typed_.find("quit") != std::string::npos) {
        end(schema::EndKind::GUEST, schema::EndCause::POWER_OFF, 0);
        return kj::READY_NOW;
      }
      if (typed_.find("panic") != std::string::npos) {
        end(schema::EndKind::GUEST, schema::EndCause::PANIC, 1);
        return kj::READY_NOW;
      }
      return echo();
    });
  }

  schema::LaunchRequest::Reader request_;
  rpc::SocketPair console_;
  kj::PromiseFulfillerPair<void> ended_;
  kj::ForkedPromise<void> endPromise_;
  kj::Own<kj::UnixEventPort::FdObserver> observer_;
  kj::Promise<void> task_ = nullptr;
  std::string output_;
  std::string typed_;
  schema::EndKind kind_ = schema::EndKind::GUEST;
  schema::EndCause cause_ = schema::EndCause::UNKNOWN;
  int exitCode_ = 0;
};

class FakeControl final : public schema::Control::Server {
 public:
  explicit FakeControl(Machine& machine) : machine_(machine) {}

  kj::Promise<void> hello(HelloContext context) override {
    context.getResults().setMajor(schema::CONTROL_MAJOR);
    context.getResults().setMinor(schema::CONTROL_MINOR);
    return kj::READY_NOW;
  }
  kj::Promise<void> started(StartedContext context) override {
    if (machine_.what() == "silent") {
      reportLine("hello");
      return kj::NEVER_DONE;
    }
    return rpc::answer(context, [this, context]() mutable {
      machine_.begin();
      machine_.describe(context.getResults().initInfo());
    });
  }
  kj::Promise<void> info(InfoContext context) override {
    machine_.describe(context.getResults().initInfo());
    return kj::READY_NOW;
  }
  kj::Promise<void> console(ConsoleContext context) override {
    context.getResults().setStream(rpc::makeDescriptor(machine_.takeConsole()));
    return kj::READY_NOW;
  }
  kj::Promise<void> wait(WaitContext context) override {
    return machine_.onEnded().then([this, context]() mutable { machine_.outcome(context.getResults().initOutcome()); });
  }
  kj::Promise<void> stop(StopContext context) override {
    reportLine("stop " + std::to_string(static_cast<int>(context.getParams().getKind())) + " " +
               context.getParams().getReason().cStr());
    if (machine_.what() == "stays") {
      return kj::NEVER_DONE;
    }
    machine_.end(context.getParams().getKind(), schema::EndCause::UNKNOWN, 143);
    machine_.outcome(context.getResults().initOutcome());
    return kj::READY_NOW;
  }
  kj::Promise<void> detach(DetachContext) override {
    reportLine("detach");
    return kj::READY_NOW;
  }

 private:
  Machine& machine_;
};

int serve() {
  struct stat status {};
  ::fstat(client::kSupervisorRequestFd, &status);
  std::vector<capnp::word> words(static_cast<std::size_t>(status.st_size) / sizeof(capnp::word));
  if (::read(client::kSupervisorRequestFd, words.data(), words.size() * sizeof(capnp::word)) != status.st_size) {
    return 1;
  }
  capnp::FlatArrayMessageReader message(kj::arrayPtr(words.data(), words.size()));
  auto io = kj::setupAsyncIo();
  Machine machine(io, message.getRoot<schema::LaunchRequest>());
  rpc::Connection connection(io, Fd(client::kSupervisorControlFd), rpc::Side::kServer, rpc::Limits{},
                             kj::heap<FakeControl>(machine));
  connection.onDisconnect().wait(io.waitScope);
  reportLine("client gone");
  return 0;
}

}  // namespace
}  // namespace vmmhost

int main() {
  return vmmhost::serve();
}
