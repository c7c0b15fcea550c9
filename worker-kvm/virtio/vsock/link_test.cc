// The device with the control thread's event loop and a host that is asked through the SDK.
#include "worker-kvm/virtio/vsock/link.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <thread>

#include "worker-kvm/virtio/vsock/test_guest.h"

namespace vmmhost::kvm::virtio::vsock::test {
namespace {

// Gives a socket for even ports, whose peer is kept.
class TestServices final : public worker::Services {
 public:
  kj::Promise<Fd> connectVsock(std::uint32_t port) override {
    if (port % 2 == 1) {
      return worker::fail<Fd>(Error(ErrorCode::kNotFound, "nothing listens"));
    }
    Pair pair = makePair();
    peers.push_back(std::move(pair.far));
    return std::move(pair.near);
  }
  std::vector<Fd> peers;
};

class LinkTest : public ::testing::Test {
 protected:
  LinkTest() : driver_(3) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    Options options;
    options.guestCid = kCid;
    options.firstDescriptor = 512;
    options.limits.maxConnections = 128;
    link_.emplace(io_.unixEventPort, services_);
    device_.emplace(options, *link_);
    device_->connect(driver_.interrupts());
    guest_.emplace(driver_, *device_);
  }
  ~LinkTest() noexcept override {
    device_.reset();
    link_.reset();
  }
  // The loop runs while the guest waits on a thread of its own.
  template <typename Work>
  void whileLoopRuns(Work work) {
    auto done = kj::newPromiseAndFulfiller<void>();
    Mailbox mailbox(io_.unixEventPort);
    std::thread guest([&, sender = mailbox.sender()] {
      work();
      sender.post([&done] { done.fulfiller->fulfill(); });
    });
    done.promise.wait(io_.waitScope);
    guest.join();
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  Driver driver_;
  TestServices services_;
  std::optional<Link> link_;
  std::optional<Vsock> device_;
  std::optional<Guest> guest_;
};

TEST_F(LinkTest, guestReachesTheHost_orIsTold) {
  whileLoopRuns([this] {
    Stream stream(*guest_, 1, 80);
    stream.send(Operation::kRequest);
    stream.expect(Operation::kResponse);
    stream.write("hello");
    EXPECT_EQ(readBytesOf(services_.peers.at(0), 5), "hello");
    Stream refused(*guest_, 2, 81);
    refused.send(Operation::kRequest);
    refused.expect(Operation::kReset);
  });
}

TEST_F(LinkTest, guestThatAsksForMuch_isAnswered) {
  whileLoopRuns([this] {
    for (std::uint32_t port = 1; port <= 100; ++port) {
      Stream(*guest_, port, 80).send(Operation::kRequest);
    }
    for (int i = 0; i < 100; ++i) {
      guest_->expect(Operation::kResponse);
    }
  });
  EXPECT_EQ(services_.peers.size(), 100u);
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::vsock::test
