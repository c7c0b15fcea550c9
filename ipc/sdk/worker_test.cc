// serve() on a thread of its own against a host made of the schema alone.
#include "vmmhost/worker/worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "ipc/rpc/connection.h"

namespace vmmhost::worker {
namespace {

// More than a host lets a worker have open at once, fewer than EventSender keeps.
constexpr unsigned kBurst = 200;

class TestMachine final : public Machine {
 public:
  TestMachine(Events& events, unsigned burst) : events_(events), burst_(burst) {}
  kj::Promise<void> start() override {
    for (unsigned i = 0; i < burst_; ++i) {
      events_.bootPhase(static_cast<std::uint8_t>(i), i);
    }
    events_.bootPhase(7, 42);
    events_.diskFull(3);
    events_.ended(schema::EndCause::POWER_OFF, "done");
    events_.ended(schema::EndCause::CRASH, "never said");
    return kj::READY_NOW;
  }
  bool canPause() const override { return true; }
  kj::Promise<void> pause() override { return fail(Error(ErrorCode::kUnsupported, "no pause today")); }

 private:
  Events& events_;
  unsigned burst_;
};

// A guest that wants many connections to the host at once, and says what came of them.
class ConnectingMachine final : public Machine {
 public:
  ConnectingMachine(Events& events, unsigned count) : events_(events), count_(count) {}
  kj::Promise<void> start() override {
    kj::Vector<kj::Promise<void>> all;
    for (std::uint32_t port = 0; port < count_; ++port) {
      all.add(events_.services().connectVsock(port).then(
          [this, port](Fd socket) {
            std::uint32_t told = 0;
            EXPECT_EQ(::read(socket.get(), &told, sizeof told), static_cast<ssize_t>(sizeof told));
            connected_ += told == port ? 1 : 0;
          },
          [this](kj::Exception&& exception) { ++refused_[rpc::fromKj(exception).code()]; }));
    }
    return kj::joinPromises(all.releaseAsArray()).then([this]() {
      events_.ended(schema::EndCause::POWER_OFF,
                    std::to_string(connected_) + " connected, " + std::to_string(refused_[ErrorCode::kNotFound]) +
                        " not found, " + std::to_string(refused_[ErrorCode::kResourceExhausted]) + " too many, " +
                        std::to_string(refused_[ErrorCode::kUnsupported]) + " unsupported");
    });
  }
  bool hasVsock() const override { return true; }
  kj::Promise<void> connectVsock(std::uint32_t port, Fd socket) override {
    if (port == 0) {
      return fail(Error(ErrorCode::kResourceExhausted, "no more"));
    }
    const std::string line = "OK " + std::to_string(port) + "\n";
    EXPECT_EQ(::write(socket.get(), line.data(), line.size()), static_cast<ssize_t>(line.size()));
    return kj::READY_NOW;
  }

 private:
  Events& events_;
  unsigned count_;
  unsigned connected_ = 0;
  std::map<ErrorCode, unsigned> refused_;
};

// Offers an object of its own, and would be wrong if it were asked by functions as well.
class OfferingMachine final : public Machine {
 public:
  explicit OfferingMachine(std::atomic<bool>& isThere) : isThere_(isThere) { isThere_ = true; }
  ~OfferingMachine() override { isThere_ = false; }
  kj::Promise<void> start() override { return kj::READY_NOW; }
  bool canPause() const override { return true; }
  bool offer(schema::Abilities::Builder abilities) override {
    abilities.setBalloon(kj::heap<Balloon>(*this));
    return true;
  }

 private:
  class Balloon final : public schema::BalloonControl::Server {
   public:
    explicit Balloon(OfferingMachine& machine) : machine_(machine) {}
    kj::Promise<void> setTarget(SetTargetContext context) override {
      return answer(context, [this, context]() mutable {
        if (context.getParams().getBytes() > 100) {
          throw Error(ErrorCode::kResourceExhausted, "too much", "less", true);
        }
        machine_.target_ = context.getParams().getBytes();
      });
    }
    kj::Promise<void> actual(ActualContext context) override {
      return answer(context, [this, context]() mutable -> kj::Promise<void> {
        if (machine_.target_ == 0) {
          return fail(Error(ErrorCode::kFailedPrecondition, "no target"));
        }
        context.getResults().setBytes(machine_.target_);
        return kj::READY_NOW;
      });
    }

   private:
    OfferingMachine& machine_;
  };
  std::atomic<bool>& isThere_;
  std::uint64_t target_ = 0;
};

class TestBackend final : public Backend {
 public:
  std::vector<std::string> features() const override { return {"a", "b"}; }
  void confine() override { confined = true; }
  kj::Promise<std::unique_ptr<Machine>> create(schema::VmConfig::Reader config, Resources& resources, Events& events,
                                               kj::AsyncIoContext&) override {
    if (config.getName() == "refused") {
      throw Error(ErrorCode::kInvalidArgument, "a bad name", "another one");
    }
    const Fd file = resources.takeFile(config.getBoot().getKernel().getResource());
    EXPECT_TRUE(file);
    if (config.getName() == "offering") {
      return std::unique_ptr<Machine>(std::make_unique<OfferingMachine>(isThere));
    }
    if (config.getName() == "connecting") {
      return std::unique_ptr<Machine>(std::make_unique<ConnectingMachine>(events, connects));
    }
    return std::unique_ptr<Machine>(std::make_unique<TestMachine>(events, burst));
  }
  bool confined = false;
  unsigned burst = 0;
  unsigned connects = 0;
  std::atomic<bool> isThere = false;  // the machine that offers
};

// Knows every second port, and tells on a connection which one it is. Slow: answers when it is told to.
class TestVsockHost final : public schema::VsockHost::Server {
 public:
  explicit TestVsockHost(kj::Timer& timer) : timer_(timer) {}
  kj::Promise<void> connect(ConnectContext context) override {
    mostAtOnce = std::max(mostAtOnce, ++now_);
    return timer_.afterDelay(1 * kj::MILLISECONDS).then([this, context]() mutable {
      --now_;
      const std::uint32_t port = context.getParams().getPort();
      if (port % 2 == 1) {
        rpc::writeError(Error(ErrorCode::kNotFound, "nothing listens"), context.getResults().initError());
        return;
      }
      rpc::SocketPair pair = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
      EXPECT_EQ(::write(pair.local.get(), &port, sizeof port), static_cast<ssize_t>(sizeof port));
      context.getResults().setSocket(rpc::makeDescriptor(std::move(pair.remote)));
    });
  }
  static unsigned mostAtOnce;

 private:
  kj::Timer& timer_;
  unsigned now_ = 0;
};
unsigned TestVsockHost::mostAtOnce = 0;

class RecordingSink final : public schema::EventSink::Server {
 public:
  explicit RecordingSink(std::vector<std::string>& seen) : seen_(seen) {}
  kj::Promise<void> event(EventContext context) override {
    const auto event = context.getParams().getEvent();
    seen_.push_back(event.isEnded()      ? std::string("ended ") + event.getEnded().getDetail().cStr()
                    : event.isDiskFull() ? "full " + std::to_string(event.getDiskFull())
                                         : "phase " + std::to_string(event.getBootPhase().getMonotonicNs()));
    return kj::READY_NOW;
  }

 private:
  std::vector<std::string>& seen_;
};

class WorkerTest : public testing::Test {
 protected:
  WorkerTest() {
    rpc::SocketPair sockets = rpc::makeSocketPair();
    thread_ = std::thread([this, fd = sockets.remote.release()]() {
      ServeOptions options;
      options.rpcDescriptor = fd;
      result_ = serve(backend_, options);
    });
    connection_ = std::make_unique<rpc::Connection>(io_, std::move(sockets.local), rpc::Side::kClient, rpc::Limits());
    worker_ = connection_->bootstrap<schema::Worker>();
  }
  ~WorkerTest() noexcept override {
    worker_ = nullptr;
    connection_ = nullptr;
    thread_.join();
    EXPECT_EQ(result_, 0);
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  }
  Error helloError(std::uint16_t major) {
    auto request = worker_.helloRequest();
    request.initHost().setProtocolMajor(major);
    auto response = request.send().wait(io_.waitScope);
    return response.hasError() ? rpc::readError(response.getError()) : Error(ErrorCode::kUnknown, "");
  }
  void greet() {
    EXPECT_EQ(helloError(schema::PROTOCOL_MAJOR).code(), ErrorCode::kUnknown);
    EXPECT_FALSE(worker_.confirmRequest().send().wait(io_.waitScope).hasError());
  }
  void attachKernel() {
    auto request = worker_.attachRequest();
    request.initResource().setFile(1);
    request.setDescriptor(rpc::makeDescriptor(Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC))));
    EXPECT_FALSE(request.send().wait(io_.waitScope).hasError());
  }
  auto create(const char* name, schema::VsockHost::Client vsock = nullptr, bool withVsock = false) {
    auto request = worker_.createRequest();
    auto config = request.initConfig();
    config.setName(name);
    config.initBoot().initKernel().setResource(1);
    request.setEvents(kj::heap<RecordingSink>(seen_));
    if (withVsock) {
      request.setVsock(kj::mv(vsock));
    }
    return request.send().wait(io_.waitScope);
  }
  // Once both sides have dropped what they hold of its peer.
  void expectClosed(const Fd& socket) {
    kj::UnixEventPort::FdObserver observer(io_.unixEventPort, socket.get(),
                                           kj::UnixEventPort::FdObserver::OBSERVE_READ);
    char byte = 0;
    if (::read(socket.get(), &byte, 1) < 0) {
      observer.whenBecomesReadable()
          .exclusiveJoin(io_.provider->getTimer().afterDelay(10 * kj::SECONDS))
          .wait(io_.waitScope);
    }
    EXPECT_EQ(::read(socket.get(), &byte, 1), 0);
  }
  // What start() of a machine with such a burst of events makes the host see.
  void startBurst(unsigned count) {
    backend_.burst = count;
    greet();
    attachKernel();
    auto created = create("vm");
    ASSERT_FALSE(created.hasError());
    EXPECT_FALSE(created.getVm().startRequest().send().wait(io_.waitScope).hasError());
    auto& timer = io_.provider->getTimer();
    while (seen_.empty() || seen_.back() != "ended done") {
      ASSERT_EQ(connection_->violation(), "");
      timer.afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  TestBackend backend_;
  std::thread thread_;
  int result_ = -1;
  std::unique_ptr<rpc::Connection> connection_;
  schema::Worker::Client worker_ = nullptr;
  std::vector<std::string> seen_;
};

TEST_F(WorkerTest, otherMajorVersion_isRefusedWithBothVersions) {
  const Error error = helloError(schema::PROTOCOL_MAJOR + 1);
  EXPECT_EQ(error.code(), ErrorCode::kProtocol);
  EXPECT_NE(error.message().find("protocol 2"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("this worker 1"), std::string::npos) << error.message();
}

TEST_F(WorkerTest, callsOutOfOrder_areRefused) {
  EXPECT_EQ(rpc::readError(worker_.confirmRequest().send().wait(io_.waitScope).getError()).code(),
            ErrorCode::kProtocol);
  greet();
  EXPECT_EQ(helloError(schema::PROTOCOL_MAJOR).code(), ErrorCode::kProtocol);
}

TEST_F(WorkerTest, lifeOfAMachine_eventsOnceAndInOrder) {
  greet();
  EXPECT_TRUE(backend_.confined);
  attachKernel();
  auto created = create("vm");
  ASSERT_FALSE(created.hasError());
  EXPECT_TRUE(created.getAbilities().hasPausable());
  EXPECT_FALSE(created.getAbilities().hasPowerButton());
  EXPECT_FALSE(created.getAbilities().hasResettable());
  EXPECT_FALSE(created.getAbilities().hasVsock());
  EXPECT_FALSE(created.getVm().startRequest().send().wait(io_.waitScope).hasError());
  const auto paused = created.getAbilities().getPausable().pauseRequest().send().wait(io_.waitScope);
  EXPECT_EQ(rpc::readError(paused.getError()).message(), "no pause today");
  EXPECT_EQ(seen_, (std::vector<std::string>{"phase 42", "full 3", "ended done"}));
  EXPECT_EQ(rpc::readError(created.getVm().startRequest().send().wait(io_.waitScope).getError()).code(),
            ErrorCode::kFailedPrecondition);
}

TEST_F(WorkerTest, machineThatOffersItsObjects_isNotAskedByFunctions_andLivesAsLongAsTheyDo) {
  greet();
  attachKernel();
  auto balloon = [this]() {
    auto created = create("offering");
    EXPECT_FALSE(created.hasError());
    EXPECT_FALSE(created.getAbilities().hasPausable());
    return created.getAbilities().getBalloon();
  }();  // all else that reaches the machine is dropped
  const auto setTarget = [&](std::uint64_t bytes) {
    auto request = balloon.setTargetRequest();
    request.setBytes(bytes);
    const auto response = request.send().wait(io_.waitScope);
    return response.hasError() ? rpc::readError(response.getError()) : Error(ErrorCode::kUnknown, "none");
  };
  const auto untold = balloon.actualRequest().send().wait(io_.waitScope);
  EXPECT_EQ(rpc::readError(untold.getError()).message(), "no target");
  EXPECT_EQ(setTarget(50).message(), "none");
  EXPECT_EQ(balloon.actualRequest().send().wait(io_.waitScope).getBytes(), 50U);
  const Error refused = setTarget(101);
  EXPECT_EQ(refused.code(), ErrorCode::kResourceExhausted);
  EXPECT_EQ(refused.hint(), "less");
  EXPECT_TRUE(refused.retryable());
  EXPECT_TRUE(backend_.isThere);
}

TEST_F(WorkerTest, burstOfEvents_arrivesWholeAndInOrder) {
  startBurst(kBurst);
  std::vector<std::string> expected;
  for (unsigned i = 0; i < kBurst; ++i) {
    expected.push_back("phase " + std::to_string(i));
  }
  expected.insert(expected.end(), {"phase 42", "full 3", "ended done"});
  EXPECT_EQ(seen_, expected);
}

TEST_F(WorkerTest, eventsBeyondWhatIsKept_areDroppedButNotTheEnd) {
  startBurst(100000);
  EXPECT_GT(seen_.size(), kBurst);
  EXPECT_LT(seen_.size(), 1000u);
  EXPECT_EQ(std::count(seen_.begin(), seen_.end(), "ended done"), 1);
}

TEST_F(WorkerTest, clientsForTheGuest_areHandedOver) {
  greet();
  attachKernel();
  auto created = create("connecting");
  ASSERT_FALSE(created.hasError());
  ASSERT_TRUE(created.getAbilities().hasVsock());
  auto vsock = created.getAbilities().getVsock();
  const auto connect = [&](std::uint32_t port, Fd socket) {
    auto request = vsock.connectRequest();
    request.setPort(port);
    request.setSocket(rpc::makeDescriptor(std::move(socket)));
    return request.send().wait(io_.waitScope);
  };
  rpc::SocketPair taken = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  EXPECT_FALSE(connect(5000, std::move(taken.remote)).hasError());
  char line[16] = {};
  EXPECT_EQ(::read(taken.local.get(), line, sizeof line), 8);
  EXPECT_STREQ(line, "OK 5000\n");
  expectClosed(taken.local);  // nobody holds it any more
  rpc::SocketPair refused = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
  EXPECT_EQ(rpc::readError(connect(0, std::move(refused.remote)).getError()).code(), ErrorCode::kResourceExhausted);
  expectClosed(refused.local);
}

TEST_F(WorkerTest, machineThatConnectsMuch_asksTheHostInMeasure_andWaitsOnlySoFar) {
  backend_.connects = 300;
  greet();
  attachKernel();
  auto created = create("connecting", kj::heap<TestVsockHost>(io_.provider->getTimer()), true);
  ASSERT_FALSE(created.hasError());
  EXPECT_FALSE(created.getVm().startRequest().send().wait(io_.waitScope).hasError());
  EXPECT_EQ(seen_, (std::vector<std::string>{"ended 136 connected, 136 not found, 28 too many, 0 unsupported"}));
  EXPECT_EQ(TestVsockHost::mostAtOnce, 16u);
  EXPECT_EQ(connection_->violation(), "");
}

TEST_F(WorkerTest, machineThatConnects_whereTheHostDoesNot_isTold) {
  backend_.connects = 3;
  greet();
  attachKernel();
  auto created = create("connecting");
  ASSERT_FALSE(created.hasError());
  EXPECT_FALSE(created.getVm().startRequest().send().wait(io_.waitScope).hasError());
  EXPECT_EQ(seen_, (std::vector<std::string>{"ended 0 connected, 0 not found, 0 too many, 3 unsupported"}));
}

TEST_F(WorkerTest, errorOfTheBackend_arrivesWhole) {
  greet();
  auto created = create("refused");
  ASSERT_TRUE(created.hasError());
  const Error error = rpc::readError(created.getError());
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.message(), "a bad name");
  EXPECT_EQ(error.hint(), "another one");
}

TEST_F(WorkerTest, missingResource_isNamed) {
  greet();
  auto created = create("vm");
  ASSERT_TRUE(created.hasError());
  EXPECT_NE(rpc::readError(created.getError()).message().find("resource 1"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::worker
