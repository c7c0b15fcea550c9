// The client against a peer that says what a test wants it to say.
#include "worker/qmp_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>

namespace qemubackend {
namespace {

using namespace std::chrono_literals;

constexpr const char* kGreeting = "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\r\n";

class QmpClientTest : public testing::Test {
 protected:
  QmpClientTest() : io_(kj::setupAsyncIo()) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
      throw vmmhost::systemError("socketpair", errno);
    }
    client_ = std::make_unique<QmpClient>(io_, vmmhost::Fd(ends[0]),
                                          [this](const QmpMessage& event) { events_.push_back(event.name); });
    peer_ = io_.lowLevelProvider->wrapSocketFd(ends[1], kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP |
                                                            kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC |
                                                            kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK);
    run_ = client_->run();
  }

  ~QmpClientTest() noexcept override {}

  void say(const std::string& text) { peer_->write(text.data(), text.size()).wait(io_.waitScope); }
  std::string hear() {
    std::string line;
    char c;
    while (peer_->tryRead(&c, 1, 1).wait(io_.waitScope) == 1 && c != '\n') {
      line += c;
    }
    return line;
  }
  void handshake() {
    auto done = client_->handshake(10s);
    say(kGreeting);
    EXPECT_EQ(hear(), "{\"execute\":\"qmp_capabilities\",\"id\":1}\r");
    say("{\"return\":{},\"id\":1}\r\n");
    done.wait(io_.waitScope);
  }
  std::string violation() { return run_.wait(io_.waitScope); }
  // The promise is rejected, with this in its message.
  template <typename Promise>
  void expectFailure(Promise promise, const std::string& text) {
    try {
      promise.wait(io_.waitScope);
      ADD_FAILURE() << "was done, expected: " << text;
    } catch (const kj::Exception& why) {
      EXPECT_NE(std::string(why.getDescription().cStr()).find(text), std::string::npos) << why.getDescription().cStr();
    }
  }

  kj::AsyncIoContext io_;
  std::vector<std::string> events_;
  std::unique_ptr<QmpClient> client_;
  kj::Own<kj::AsyncIoStream> peer_;
  kj::Promise<std::string> run_ = nullptr;
};

TEST_F(QmpClientTest, replies_reachTheirCommandsInAnyOrder) {
  handshake();
  auto first = client_->execute("query-status");
  auto second = client_->execute("stop");
  EXPECT_EQ(hear(), "{\"execute\":\"query-status\",\"id\":2}\r");
  EXPECT_EQ(hear(), "{\"execute\":\"stop\",\"id\":3}\r");
  say("{\"event\":\"STOP\"}\n{\"error\":{\"class\":\"GenericError\",\"desc\":\"not now\"},\"id\":3}\n"
      "{\"return\":{\"status\":\"running\"},\"id\":2}\n");
  EXPECT_EQ(first.wait(io_.waitScope).status, "running");
  expectFailure(kj::mv(second), "QEMU refused: not now");
  EXPECT_EQ(events_, std::vector<std::string>{"STOP"});
}

TEST_F(QmpClientTest, endOfFile_failsWhatIsPendingAndIsNoViolation) {
  handshake();
  auto pending = client_->execute("stop");
  peer_ = nullptr;
  EXPECT_EQ(violation(), "");
  expectFailure(kj::mv(pending), "QEMU has ended");
  expectFailure(client_->execute("stop"), "QEMU has ended");
}

TEST_F(QmpClientTest, replyThatNobodyAskedFor_isAViolation) {
  handshake();
  say("{\"return\":{},\"id\":99}\n");
  EXPECT_NE(violation().find("id 99"), std::string::npos);
}

TEST_F(QmpClientTest, secondReplyToOneCommand_isAViolation) {
  handshake();
  auto once = client_->execute("stop");
  say("{\"return\":{},\"id\":2}\n{\"return\":{},\"id\":2}\n");
  once.wait(io_.waitScope);
  EXPECT_EQ(violation(), "QMP: a reply to a command that was not sent, id 2");
}

TEST_F(QmpClientTest, messageBeforeTheGreeting_isAViolation) {
  say("{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}\n");
  EXPECT_EQ(violation(), "QMP: a message before the greeting");
  EXPECT_TRUE(events_.empty());
}

TEST_F(QmpClientTest, secondGreeting_isAViolation) {
  handshake();
  say(kGreeting);
  EXPECT_EQ(violation(), "QMP: a second greeting");
}

TEST_F(QmpClientTest, lineWithoutEnd_isAViolationAtItsLimit) {
  handshake();
  // More than a socket takes in: written while it is read.
  const std::string line(1 << 20, 'x');
  auto write = peer_->write(line.data(), line.size()).eagerlyEvaluate([](kj::Exception&&) {});
  EXPECT_NE(violation().find("longer"), std::string::npos);
}

TEST_F(QmpClientTest, silence_endsAtTheDeadline) {
  handshake();
  expectFailure(client_->execute("stop", {}, 1ms), "QEMU did not answer stop within 1 ms");
  // Its late reply is known, and no violation.
  say("{\"return\":{},\"id\":2}\n{\"event\":\"RESUME\"}\n");
  auto next = client_->execute("cont");
  say("{\"return\":{},\"id\":3}\n");
  next.wait(io_.waitScope);
  EXPECT_EQ(events_, std::vector<std::string>{"RESUME"});
}

TEST_F(QmpClientTest, silenceAtTheStart_endsAtTheDeadline) {
  expectFailure(client_->handshake(1ms), "QEMU did not answer at all within 1 ms");
}

TEST_F(QmpClientTest, commandsThatAreNeverAnswered_areBounded) {
  handshake();
  std::vector<kj::Promise<QmpMessage>> pending;
  for (int i = 0; i < 32; ++i) {
    pending.push_back(client_->execute("stop"));
  }
  expectFailure(client_->execute("stop"), "too many commands that QEMU has not answered");
  for (auto& one : pending) {
    EXPECT_FALSE(one.poll(io_.waitScope)) << "those before it wait on";
  }
}

}  // namespace
}  // namespace qemubackend
