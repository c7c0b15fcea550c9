#include "worker-kvm/io/calls.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "vmmhost/fd.h"

namespace vmmhost::kvm::io {
namespace {

struct Pair {
  Fd near;
  Fd far;
};

Pair makePair() {
  int both[2] = {-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both), 0);
  return {Fd(both[0]), Fd(both[1])};
}

TEST(Calls, errors_areNegativeErrnoValues) {
  std::array<epoll_event, 1> events{};
  char byte = 0;
  errno = 0;
  EXPECT_EQ(waitForEvents(-1, events.data(), events.size()), -EBADF);
  EXPECT_EQ(writeTo(-1, &byte, 1), -EBADF);
  EXPECT_EQ(sendTo(-1, &byte, 1, 0), -EBADF);
  EXPECT_EQ(receiveFrom(-1, &byte, 1, 0), -EBADF);
  const Pair pair = makePair();
  EXPECT_EQ(receiveFrom(pair.near.get(), &byte, 1, MSG_DONTWAIT), -EAGAIN);
}

TEST(Calls, events_areWaitedFor) {
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event wanted{};
  wanted.events = EPOLLIN;
  wanted.data.u64 = 17;
  ASSERT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, event.get(), &wanted), 0);
  const std::uint64_t one = 1;
  EXPECT_EQ(writeTo(event.get(), &one, sizeof one), static_cast<long>(sizeof one));
  std::array<epoll_event, 4> events{};
  ASSERT_EQ(waitForEvents(epoll.get(), events.data(), events.size()), 1);
  EXPECT_EQ(events[0].events, EPOLLIN);
  EXPECT_EQ(events[0].data.u64, 17U);
}

TEST(Calls, bytes_areSentAndReceived_asTheFlagsSay) {
  const Pair pair = makePair();
  constexpr std::string_view kText = "some bytes";
  EXPECT_EQ(sendTo(pair.near.get(), kText.data(), kText.size(), MSG_NOSIGNAL), static_cast<long>(kText.size()));
  std::array<char, 64> read{};
  for (const int flags : std::initializer_list<int>{MSG_PEEK, 0}) {
    read.fill(0);
    ASSERT_EQ(receiveFrom(pair.far.get(), read.data(), read.size(), flags), static_cast<long>(kText.size())) << flags;
    EXPECT_EQ(std::string_view(read.data()), kText);
  }
  EXPECT_EQ(receiveFrom(pair.far.get(), read.data(), read.size(), MSG_DONTWAIT), -EAGAIN);
}

}  // namespace
}  // namespace vmmhost::kvm::io
