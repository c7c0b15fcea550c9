#include "host/client/control_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "host/base/build_info.h"
#include "ipc/rpc/answer.h"

namespace vmmhost::client {
namespace {

using std::chrono::milliseconds;

// What the supervisor's side of a test does.
struct Behaviour {
  std::uint16_t major = schema::CONTROL_MAJOR;
  std::string build = "vmmhost test";  // empty: tells none
  bool answersInfo = true;
  std::uint32_t memoryWithinMs = 1;  // as info said
  std::size_t nameBytes = 4;
  Fd console;
  std::vector<std::string> calls;
  kj::Maybe<schema::StateSink::Client> sink;
};

class TestControl final : public schema::Control::Server {
 public:
  explicit TestControl(Behaviour& behaviour) : behaviour_(behaviour) {}

  kj::Promise<void> hello(HelloContext context) override {
    behaviour_.calls.push_back("hello " + std::string(context.getParams().getBuild().cStr()));
    context.getResults().setMajor(behaviour_.major);
    if (!behaviour_.build.empty()) {
      context.getResults().setBuild(behaviour_.build);
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> info(InfoContext context) override {
    behaviour_.calls.push_back("info");
    behaviour_.memoryWithinMs = context.getParams().getMemoryWithinMs();
    if (!behaviour_.answersInfo) {
      return kj::NEVER_DONE;
    }
    const std::string name(behaviour_.nameBytes, 'n');
    context.getResults().initInfo().setName(name.c_str());
    return kj::READY_NOW;
  }
  kj::Promise<void> pause(PauseContext context) override {
    return rpc::answer(
        context, []() { throw Error(ErrorCode::kUnsupported, "backend test cannot pause", "use another backend"); });
  }
  kj::Promise<void> resume(ResumeContext context) override {
    return rpc::answer(context, []() { throw Error(ErrorCode::kSupervisorDied, "the supervisor of VM web is gone"); });
  }
  kj::Promise<void> stop(StopContext context) override {
    behaviour_.calls.push_back("stop " + std::string(context.getParams().getReason().cStr()));
    auto outcome = context.getResults().initOutcome();
    outcome.setKind(context.getParams().getKind());
    outcome.setExitCode(143);
    return kj::READY_NOW;
  }
  kj::Promise<void> wait(WaitContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> console(ConsoleContext context) override {
    context.getResults().setStream(rpc::makeDescriptor(std::move(behaviour_.console)));
    return kj::READY_NOW;
  }
  kj::Promise<void> watch(WatchContext context) override {
    behaviour_.sink = context.getParams().getSink();
    return kj::READY_NOW;
  }

 private:
  Behaviour& behaviour_;
};

class ControlClientTest : public ::testing::Test {
 public:
  ~ControlClientTest() noexcept override = default;

 protected:
  void connect() {
    rpc::SocketPair pair = rpc::makeSocketPair();
    rpc::Limits limits;
    limits.maxSentWords = std::uint64_t{1} << 20;  // it may say more than a client takes
    server_ = std::make_unique<rpc::Connection>(io_, std::move(pair.remote), rpc::Side::kServer, limits,
                                                kj::heap<TestControl>(behaviour_));
    client_ = std::make_unique<ControlClient>(io_, std::move(pair.local), "web");
  }
  template <typename T>
  Error failure(kj::Promise<T> promise) {
    try {
      await(io_, kj::mv(promise));
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "did not fail";
    return Error(ErrorCode::kUnknown, "");
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  Behaviour behaviour_;
  std::unique_ptr<rpc::Connection> server_;
  std::unique_ptr<ControlClient> client_;
};

TEST_F(ControlClientTest, hello_isTheFirstCall) {
  connect();
  await(io_, client_->info());
  ASSERT_EQ(behaviour_.calls.size(), 2u);
  EXPECT_EQ(behaviour_.calls[0].substr(0, 14), "hello vmmhost ");
  EXPECT_EQ(behaviour_.calls[1], "info");
  await(io_, client_->hello());
  EXPECT_EQ(behaviour_.calls.size(), 2u) << "and is made once";
}

TEST_F(ControlClientTest, otherMajorVersion_isRefusedWithBothBuilds) {
  behaviour_.major = schema::CONTROL_MAJOR + 1;
  connect();
  const Error error = failure(client_->hello());
  EXPECT_EQ(error.code(), ErrorCode::kProtocol);
  EXPECT_NE(error.message().find("VM web speaks version 2"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("vmmhost test"), std::string::npos) << error.message();
  EXPECT_FALSE(error.hint().empty());
}

TEST_F(ControlClientTest, hello_bringsTheSupervisorsBuild) {
  connect();
  EXPECT_FALSE(client_->supervisorBuild());
  await(io_, client_->hello());
  EXPECT_EQ(client_->supervisorBuild(), "vmmhost test");
  behaviour_.build = "";
  connect();
  await(io_, client_->hello());
  EXPECT_EQ(client_->supervisorBuild(), "");
}

TEST_F(ControlClientTest, supervisorsBuild_isBoundedAndPrintable) {
  behaviour_.build = "\x1b[2J" + std::string(10'000, 'x');
  behaviour_.major = schema::CONTROL_MAJOR + 1;
  connect();
  const Error error = failure(client_->hello());
  ASSERT_TRUE(client_->supervisorBuild()) << "told though it is refused";
  EXPECT_LE(client_->supervisorBuild()->size(), kMaxBuildBytes);
  EXPECT_EQ(client_->supervisorBuild()->substr(0, 8), "\\x1b[2Jx");
  EXPECT_NE(error.message().find(*client_->supervisorBuild()), std::string::npos) << error.message();
  EXPECT_EQ(error.message().find('\x1b'), std::string::npos);
}

TEST_F(ControlClientTest, answersAndErrors_comeBackWhole) {
  connect();
  const auto response = await(io_, client_->info());
  EXPECT_EQ(response.getInfo().getName(), "nnnn");
  const Error error = failure(client_->pause());
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.message(), "backend test cannot pause");
  EXPECT_EQ(error.hint(), "use another backend");
  const auto stopped = await(io_, client_->stop(schema::EndKind::SIGNALLED, "SIGINT"));
  EXPECT_EQ(stopped.getOutcome().getKind(), schema::EndKind::SIGNALLED);
  EXPECT_EQ(stopped.getOutcome().getExitCode(), 143);
  EXPECT_EQ(behaviour_.calls.back(), "stop SIGINT");
}

TEST_F(ControlClientTest, methodThatTheSupervisorDoesNotHave_isNamed) {
  connect();
  for (const Error& error : {failure(client_->balloon()), failure(client_->started())}) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.hint(), "start the VM anew with this version");
  }
  EXPECT_EQ(failure(client_->resizeConsole(0, 80, 25)).message(),
            "the supervisor of VM web is of a version without resizeConsole");
}

// A worker decides how long its memory takes: that is not to be what the answer is late for.
TEST_F(ControlClientTest, info_leavesTimeForItsAnswer) {
  connect();
  await(io_, client_->info(milliseconds(60'000)));
  EXPECT_GT(behaviour_.memoryWithinMs, 1000u);
  EXPECT_LT(behaviour_.memoryWithinMs, 50'000u);
  await(io_, client_->info(milliseconds(60'000), ControlClient::Memory::kLeftOut));
  EXPECT_EQ(behaviour_.memoryWithinMs, 0u);
}

TEST_F(ControlClientTest, silence_endsByTheDeadline) {
  behaviour_.answersInfo = false;
  connect();
  const Error error = failure(client_->info(milliseconds(20)));
  EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
  EXPECT_NE(error.message().find("VM web"), std::string::npos) << error.message();
}

TEST_F(ControlClientTest, supervisorWithoutAnAnswerAtAll_endsByTheDeadline) {
  rpc::SocketPair pair = rpc::makeSocketPair();  // nobody reads the other end, as with a stopped process
  ControlClient client(io_, std::move(pair.local), "web");
  EXPECT_EQ(failure(client.hello(milliseconds(20))).code(), ErrorCode::kDeadlineExceeded);
}

TEST_F(ControlClientTest, supervisorsDeath_endsWaitingCalls) {
  connect();
  await(io_, client_->hello());
  auto waiting = client_->wait();
  server_.reset();
  const Error error = failure(kj::mv(waiting));
  EXPECT_EQ(error.code(), ErrorCode::kSupervisorDied);
  EXPECT_EQ(error.message(), "the supervisor of VM web is gone");
  EXPECT_EQ(failure(client_->info()).code(), ErrorCode::kSupervisorDied);
}

TEST_F(ControlClientTest, supervisorThatDiesBeforeItsGreeting_isToldByItsCode) {
  rpc::SocketPair pair = rpc::makeSocketPair();
  ControlClient client(io_, std::move(pair.local), "");
  pair.remote.reset();
  const Error error = failure(client.hello());
  EXPECT_EQ(error.code(), ErrorCode::kSupervisorDied);
  EXPECT_EQ(error.message(), "the supervisor is gone");
}

// Whatever it says: as long as it answers it is there.
TEST_F(ControlClientTest, supervisorThatCallsItselfGone_isNotTakenForOneThatIs) {
  connect();
  EXPECT_EQ(failure(client_->resume()).code(), ErrorCode::kUnknown);
}

TEST_F(ControlClientTest, hugeAnswer_isCutOff) {
  behaviour_.nameBytes = std::size_t{1} << 20;
  connect();
  const Error error = failure(client_->info());
  EXPECT_EQ(error.code(), ErrorCode::kProtocol) << error.message();
  EXPECT_NE(error.message().find("broke the protocol"), std::string::npos) << error.message();
}

TEST_F(ControlClientTest, garbage_isRefused) {
  rpc::SocketPair pair = rpc::makeSocketPair();
  ControlClient client(io_, std::move(pair.local), "web");
  const unsigned char bytes[] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
  ASSERT_EQ(::write(pair.remote.get(), bytes, sizeof bytes), static_cast<ssize_t>(sizeof bytes));
  const Error error = failure(client.info());
  EXPECT_EQ(error.code(), ErrorCode::kProtocol) << error.message();
}

TEST_F(ControlClientTest, console_isAWorkingSocket) {
  rpc::SocketPair console = rpc::makeSocketPair();
  behaviour_.console = std::move(console.remote);
  connect();
  const Fd stream = await(io_, client_->console(100, true));
  ASSERT_TRUE(stream);
  ASSERT_EQ(::write(stream.get(), "typed", 5), 5);
  char buffer[8] = {};
  EXPECT_EQ(::read(console.local.get(), buffer, sizeof buffer), 5);
  EXPECT_STREQ(buffer, "typed");
}

TEST_F(ControlClientTest, stateChanges_comeInOrder) {
  connect();
  std::vector<std::string> seen;
  await(io_, client_->watch([&](schema::VmState state, std::int64_t unixMs, std::string_view detail) {
    seen.push_back(std::to_string(static_cast<int>(state)) + " " + std::to_string(unixMs) + " " + std::string(detail));
  }));
  KJ_IF_MAYBE (sink, behaviour_.sink) {
    for (int index = 0; index < 3; ++index) {
      auto request = sink->changedRequest();
      request.setState(static_cast<schema::VmState>(index));
      request.setUnixMs(100 + index);
      request.setDetail("d");
      request.send().wait(io_.waitScope);
    }
  }
  await(io_, client_->info());  // its answer comes after the changes
  EXPECT_EQ(seen, (std::vector<std::string>{"0 100 d", "1 101 d", "2 102 d"}));
}

}  // namespace
}  // namespace vmmhost::client
