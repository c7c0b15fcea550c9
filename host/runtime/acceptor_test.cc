#include "host/runtime/acceptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "host/runtime/sockets.h"
#include "host/runtime/testing.h"

namespace vmmhost::runtime::testing {
namespace {

constexpr int kBacklog = 64;

class AcceptorTest : public RuntimeTest {
 protected:
  AcceptorTest() : folder_(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    Fd listener = listenIn(folder_.get(), "door", kBacklog);
    listener_ = listener.get();
    acceptor_ = std::make_unique<Acceptor>(*io_, std::move(listener), log_, "test");
  }
  void start() {
    acceptor_->start(
        [this](Fd socket, pid_t process) {
          EXPECT_NE(::fcntl(socket.get(), F_GETFL) & O_NONBLOCK, 0);
          EXPECT_NE(::fcntl(socket.get(), F_GETFD) & FD_CLOEXEC, 0);
          EXPECT_EQ(process, ::getpid());
          taken_.push_back(std::move(socket));
        },
        [this] { return taken_.size() < room_; });
  }
  Fd connect() { return connectIn(folder_.get(), "door"); }
  // Once so many were taken and the loop has nothing more to do.
  std::size_t takenOnce(std::size_t count) {
    auto& timer = io_->provider->getTimer();
    const auto limit = timer.now() + 10 * kj::SECONDS;
    while (taken_.size() < count && timer.now() < limit) {
      timer.afterDelay(1 * kj::MILLISECONDS).wait(io_->waitScope);
    }
    timer.afterDelay(5 * kj::MILLISECONDS).wait(io_->waitScope);
    return taken_.size();
  }

  std::unique_ptr<kj::AsyncIoContext> io_ = std::make_unique<kj::AsyncIoContext>(kj::setupAsyncIo());
  Log log_{nullptr, false};
  Fd folder_;
  int listener_ = -1;
  std::size_t room_ = 1000;
  std::vector<Fd> taken_;
  std::unique_ptr<Acceptor> acceptor_;
};

TEST_F(AcceptorTest, nobodyIsTaken_beforeTheStart) {
  const Fd client = connect();
  EXPECT_EQ(takenOnce(0), 0u);
  start();
  EXPECT_EQ(takenOnce(1), 1u);
}

TEST_F(AcceptorTest, clientsWaitWhileThereIsNoRoom) {
  room_ = 2;
  start();
  std::vector<Fd> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(connect());
  }
  EXPECT_EQ(takenOnce(2), 2u);
  room_ = 39;
  acceptor_->roomMade();
  EXPECT_EQ(takenOnce(39), 39u);
  room_ = 1000;
  acceptor_->roomMade();
  EXPECT_EQ(takenOnce(40), 40u);
}

TEST_F(AcceptorTest, whoLeavesUnheard_isNotTaken_butWhoSpoke) {
  connect();
  const Fd spoke = connect();
  ASSERT_EQ(::send(spoke.get(), "x", 1, 0), 1);
  ::shutdown(spoke.get(), SHUT_RDWR);
  start();
  EXPECT_EQ(takenOnce(1), 1u);
  char byte = 0;
  EXPECT_EQ(::recv(taken_[0].get(), &byte, 1, 0), 1);
}

TEST_F(AcceptorTest, withoutDescriptors_clientsWaitUntilThereAreSome) {
  start();
  const Fd client = connect();
  // The next descriptor would be one too many.
  rlimit before = {};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const int next = Fd(::dup(listener_)).get();
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(next);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::size_t taken = takenOnce(0);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(taken, 0u);
  EXPECT_EQ(takenOnce(1), 1u);
}

}  // namespace
}  // namespace vmmhost::runtime::testing
