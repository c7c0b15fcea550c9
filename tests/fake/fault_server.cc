#include "tests/fake/fault_server.h"

#include <capnp/dynamic.h>
#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <sys/prctl.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ipc/rpc/answer.h"
#include "ipc/rpc/connection.h"
#include "tests/fake/machine.h"
#include "tests/fake/strike.h"

namespace vmmhost::fake {
namespace {

constexpr unsigned kFloodEvents = 5'000;
constexpr unsigned kOpenCalls = 56;  // fewer than a connection bears, more than the window of a stream holds
// Forged answers are for the questions with these numbers: the host has had no more than this many at once.
constexpr std::uint32_t kForgedAnswers = 64;
constexpr auto kSoon = 1 * kj::MILLISECONDS;  // a timer fires after everything that is ready was done and sent

Error faultError(Moment moment) {
  return Error(ErrorCode::kResourceExhausted, std::string("the fake backend fails at ") + momentName(moment),
               "leave fault=error out", true);
}

// Which faults there are at a moment, and how they come about.
class Faults final : private kj::TaskSet::ErrorHandler {
 public:
  Faults(std::span<const Fault> faults, kj::AsyncIoContext& io)
      : faults_(faults), timer_(io.provider->getTimer()), tasks_(*this) {}

  void setSink(schema::EventSink::Client sink) { sink_ = kj::mv(sink); }

  // Fulfilled when what comes at this moment may go on; rejected with the error to answer.
  kj::Promise<void> strike(Moment moment, bool isCall = true) {
    kj::Promise<void> done = kj::READY_NOW;
    for (const Fault& fault : faults_) {
      if (fault.moment == moment) {
        done = done.then([this, &fault, isCall] { return strikeOne(fault, isCall); });
      }
    }
    return done;
  }
  // Behind everything that is under way.
  void strikeLater(Moment moment) {
    tasks_.add(timer_.afterDelay(kSoon).then([this, moment] { return strike(moment, false); }));
  }

  template <typename Fill>
  void send(Fill fill) {
    KJ_IF_MAYBE (sink, sink_) {
      auto request = sink->eventRequest();
      fill(request.initEvent());
      tasks_.add(request.send());
    }
  }
  void sendEnded(schema::EndCause cause, const std::string& detail) {
    send([&](schema::Event::Builder event) {
      auto ended = event.initEnded();
      ended.setCause(cause);
      ended.setDetail(detail);
    });
  }

 private:
  void taskFailed(kj::Exception&&) override {}  // the host is gone, or refuses: this worker ends in any case

  kj::Promise<void> strikeOne(const Fault& fault, bool isCall) {
    switch (fault.action) {
      case Action::kSilent:
        return isCall ? kj::Promise<void>(kj::NEVER_DONE) : blockThread(fault);
      case Action::kSlow:
        return isCall ? kj::Promise<void>(timer_.afterDelay(fault.number * kj::MILLISECONDS)) : blockThread(fault);
      case Action::kError:
        return rpc::fail(faultError(fault.moment));
      case Action::kTwice:
        fault.moment == Moment::kAfterEnded ? sendEnded(schema::EndCause::POWER_OFF, "and again") : answerAgainSoon();
        return kj::READY_NOW;
      case Action::kLie:
        lie(fault.argument);
        return kj::READY_NOW;
      case Action::kFlood:
        if (fault.argument == "calls") {
          floodCalls();
          return kj::READY_NOW;
        }
        if (fault.argument == "events") {
          floodEvents([](schema::Event::Builder event) { event.initBootPhase().setMonotonicNs(1); });
          return kj::READY_NOW;
        }
        if (fault.argument == "ends") {
          floodEvents([](schema::Event::Builder event) { event.initEnded().setCause(schema::EndCause::POWER_OFF); });
          return kj::READY_NOW;
        }
        break;
      default:
        break;
    }
    return blockThread(fault);
  }
  static kj::Promise<void> blockThread(const Fault& fault) {
    strikeProcess(fault);
    return kj::READY_NOW;
  }

  void lie(std::string_view how) {
    if (how == "cause") {
      sendEnded(static_cast<schema::EndCause>(999), "of a cause that nobody knows");
      return;
    }
    send([](schema::Event::Builder event) { event.setResetDone(); });
    sendEnded(schema::EndCause::PANIC, "the first end");
    send([](schema::Event::Builder event) { event.setGuestPanicked("after its end"); });
    send([](schema::Event::Builder event) { event.initBootPhase().setValue(255); });
    sendEnded(schema::EndCause::CRASH, "the second end");
  }
  void floodCalls() {
    for (unsigned count = 0; count < kFloodEvents; ++count) {
      send([](schema::Event::Builder event) { event.setResetDone(); });
    }
  }
  using FillEvent = void (*)(schema::Event::Builder event);
  // So many are under way at any time, however slow the host is to answer.
  void floodEvents(FillEvent fill) {
    for (unsigned call = 0; call < kOpenCalls; ++call) {
      tasks_.add(sendAgain(fill, kFloodEvents));
    }
  }
  kj::Promise<void> sendAgain(FillEvent fill, unsigned left) {
    KJ_IF_MAYBE (sink, sink_) {
      if (left > 0) {
        // As a call like any other: a stream would wait for room in its window.
        schema::EventSink::Client plain = *sink;
        auto request = capnp::DynamicCapability::Client(kj::mv(plain)).newRequest("event");
        fill(request.as<schema::EventSink::EventParams>().initEvent());
        return request.send().ignoreResult().then([this, fill, left] { return sendAgain(fill, left - 1); });
      }
    }
    return kj::READY_NOW;
  }
  // Answers to questions that were answered: the host knows none of them any more.
  void answerAgainSoon() {
    tasks_.add(timer_.afterDelay(kSoon).then([] {
      for (std::uint32_t id = 0; id < kForgedAnswers; ++id) {
        capnp::MallocMessageBuilder message;
        auto answer = message.initRoot<capnp::rpc::Message>().initReturn();
        answer.setAnswerId(id);
        answer.initResults();
        const auto words = capnp::messageToFlatArray(message);
        writeAll(kRpcDescriptor, words.begin(), words.asBytes().size());
      }
    }));
  }

  std::span<const Fault> faults_;
  kj::Timer& timer_;
  kj::Maybe<schema::EventSink::Client> sink_;
  kj::TaskSet tasks_;
};

// VMs with faults have no vsock device.
class NoServices final : public worker::Services {
 public:
  kj::Promise<Fd> connectVsock(std::uint32_t) override {
    return worker::fail<Fd>(Error(ErrorCode::kUnsupported, "there is no vsock device"));
  }
};

class FaultyEvents final : public worker::Events {
 public:
  FaultyEvents(Faults& faults, kj::UnixEventPort& port) : faults_(faults), mailbox_(port) {}
  ~FaultyEvents() noexcept override {}

  void ended(schema::EndCause cause, std::string detail) override {
    faults_.sendEnded(cause, detail);
    faults_.strikeLater(Moment::kAfterEnded);
  }
  void resetDone() override {
    faults_.send([](schema::Event::Builder event) { event.setResetDone(); });
  }
  void guestPanicked(std::string) override {}
  void bootPhase(std::uint8_t, std::uint64_t) override {}
  Mailbox::Sender sender() const override { return mailbox_.sender(); }
  worker::Services& services() override { return services_; }

 private:
  Faults& faults_;
  Mailbox mailbox_;
  NoServices services_;
};

// The machine behind each of its abilities. All live as long as the process.
struct Stage {
  Faults& faults;
  FaultyEvents events;
  std::unique_ptr<FakeMachine> machine;

  // Carries a call out, unless a fault comes first.
  template <typename Context, typename Call>
  kj::Promise<void> call(Moment moment, Context context, Call call) {
    return rpc::answer(context, [this, moment, call = std::move(call)]() mutable {
      return faults.strike(moment).then(rpc::guarded(std::move(call)));
    });
  }
};

class VmServer final : public schema::Vm::Server {
 public:
  explicit VmServer(Stage& stage) : stage_(stage) {}
  kj::Promise<void> start(StartContext context) override {
    return stage_.call(Moment::kStart, context, [this] {
      stage_.faults.strikeLater(Moment::kRunning);
      return stage_.machine->start();
    });
  }

 private:
  Stage& stage_;
};

class PausableServer final : public schema::Pausable::Server {
 public:
  explicit PausableServer(Stage& stage) : stage_(stage) {}
  kj::Promise<void> pause(PauseContext context) override {
    return stage_.call(Moment::kPause, context, [this] { return stage_.machine->pause(); });
  }
  kj::Promise<void> resume(ResumeContext context) override {
    return stage_.call(Moment::kResume, context, [this] { return stage_.machine->resume(); });
  }

 private:
  Stage& stage_;
};

class PowerButtonServer final : public schema::PowerButton::Server {
 public:
  explicit PowerButtonServer(Stage& stage) : stage_(stage) {}
  kj::Promise<void> press(PressContext context) override {
    return stage_.call(Moment::kPress, context, [this] { return stage_.machine->pressPowerButton(); });
  }

 private:
  Stage& stage_;
};

class ResettableServer final : public schema::Resettable::Server {
 public:
  explicit ResettableServer(Stage& stage) : stage_(stage) {}
  kj::Promise<void> reset(ResetContext context) override {
    return stage_.call(Moment::kReset, context, [this] { return stage_.machine->reset(); });
  }

 private:
  Stage& stage_;
};

class FaultServer final : public schema::Worker::Server {
 public:
  FaultServer(Faults& faults, kj::AsyncIoContext& io)
      : io_(io), stage_{faults, FaultyEvents(faults, io.unixEventPort), nullptr} {}

  kj::Promise<void> hello(HelloContext context) override {
    return stage_.call(Moment::kHello, context, [context]() mutable {
      auto out = context.getResults().initWorker();
      out.setProtocolMajor(schema::PROTOCOL_MAJOR);
      out.setProtocolMinor(schema::PROTOCOL_MINOR);
      out.setBuild("fake");
    });
  }

  kj::Promise<void> confirm(ConfirmContext context) override {
    return stage_.call(Moment::kConfirm, context, [] { ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); });
  }

  // Received first: create is on its way already, and needs it.
  kj::Promise<void> attach(AttachContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      return rpc::receiveDescriptor(context.getParams().getDescriptor()).then([this, context](Fd fd) mutable {
        place(context.getParams().getResource(), std::move(fd));
        return std::exchange(attached_, true) ? kj::READY_NOW : stage_.faults.strike(Moment::kAttach);
      });
    });
  }

  kj::Promise<void> create(CreateContext context) override {
    stage_.faults.setSink(context.getParams().getEvents());
    return stage_.call(Moment::kCreate, context, [this, context]() mutable {
      const auto config = context.getParams().getConfig();
      given_.kernel = std::move(files_[config.getBoot().getKernel().getResource()]);
      given_.initrd = std::move(files_[config.getBoot().getInitrd().getResource()]);
      stage_.machine = makeMachine(config, std::move(given_), stage_.events, io_);
      auto results = context.getResults();
      auto abilities = results.initAbilities();
      abilities.setPausable(kj::heap<PausableServer>(stage_));
      abilities.setPowerButton(kj::heap<PowerButtonServer>(stage_));
      abilities.setResettable(kj::heap<ResettableServer>(stage_));
      results.setVm(kj::heap<VmServer>(stage_));
    });
  }

 private:
  void place(schema::Resource::Reader resource, Fd fd) {
    switch (resource.which()) {
      case schema::Resource::FILE:
        files_[resource.getFile()] = std::move(fd);
        return;
      case schema::Resource::DEVICE:
        return;
      case schema::Resource::CONSOLE:
        given_.consoles[resource.getConsole()] = std::move(fd);
        return;
      case schema::Resource::NIC:
        return;
      case schema::Resource::COUNTERS:
        given_.counters = std::move(fd);
        return;
      case schema::Resource::MEMORY:
        return;
    }
  }

  kj::AsyncIoContext& io_;
  Stage stage_;
  std::map<std::uint32_t, Fd> files_;
  Given given_;
  bool attached_ = false;
};

}  // namespace

int serveWithFaults(std::span<const Fault> faults) {
  auto io = kj::setupAsyncIo();
  Faults struck(faults, io);
  rpc::Limits limits;
  limits.acceptDescriptors = true;
  rpc::Connection connection(io, Fd(kRpcDescriptor), rpc::Side::kServer, limits, kj::heap<FaultServer>(struck, io));
  connection.onDisconnect().wait(io.waitScope);
  return 0;
}

}  // namespace vmmhost::fake
