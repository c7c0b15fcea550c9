// serve() on a thread of its own against a host made of the schema alone.
#include "vmmhost/worker/worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <algorithm>
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
    return std::unique_ptr<Machine>(std::make_unique<TestMachine>(events, burst));
  }
  bool confined = false;
  unsigned burst = 0;
};

class RecordingSink final : public schema::EventSink::Server {
 public:
  explicit RecordingSink(std::vector<std::string>& seen) : seen_(seen) {}
  kj::Promise<void> event(EventContext context) override {
    const auto event = context.getParams().getEvent();
    seen_.push_back(event.isEnded() ? std::string("ended ") + event.getEnded().getDetail().cStr()
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
  auto create(const char* name) {
    auto request = worker_.createRequest();
    auto config = request.initConfig();
    config.setName(name);
    config.initBoot().initKernel().setResource(1);
    request.setEvents(kj::heap<RecordingSink>(seen_));
    return request.send().wait(io_.waitScope);
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
  EXPECT_FALSE(created.getVm().startRequest().send().wait(io_.waitScope).hasError());
  const auto paused = created.getAbilities().getPausable().pauseRequest().send().wait(io_.waitScope);
  EXPECT_EQ(rpc::readError(paused.getError()).message(), "no pause today");
  EXPECT_EQ(seen_, (std::vector<std::string>{"phase 42", "ended done"}));
  EXPECT_EQ(rpc::readError(created.getVm().startRequest().send().wait(io_.waitScope).getError()).code(),
            ErrorCode::kFailedPrecondition);
}

TEST_F(WorkerTest, burstOfEvents_arrivesWholeAndInOrder) {
  startBurst(kBurst);
  std::vector<std::string> expected;
  for (unsigned i = 0; i < kBurst; ++i) {
    expected.push_back("phase " + std::to_string(i));
  }
  expected.insert(expected.end(), {"phase 42", "ended done"});
  EXPECT_EQ(seen_, expected);
}

TEST_F(WorkerTest, eventsBeyondWhatIsKept_areDroppedButNotTheEnd) {
  startBurst(100000);
  EXPECT_GT(seen_.size(), kBurst);
  EXPECT_LT(seen_.size(), 1000u);
  EXPECT_EQ(std::count(seen_.begin(), seen_.end(), "ended done"), 1);
}

TEST_F(WorkerTest, errorOfTheBackend_arrivesWhole) {
  greet();
  auto created = create("refused");
  ASSERT_TRUE(created.hasError());
  EXPECT_EQ(rpc::readError(created.getError()).hint(), "another one");
}

TEST_F(WorkerTest, missingResource_isNamed) {
  greet();
  auto created = create("vm");
  ASSERT_TRUE(created.hasError());
  EXPECT_NE(rpc::readError(created.getError()).message().find("resource 1"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::worker
