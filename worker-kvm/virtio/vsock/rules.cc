#include "worker-kvm/virtio/vsock/rules.h"

#include <asm/unistd.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace vmmhost::kvm::virtio::vsock {

namespace {

// A condition compares some bits of an argument: a range is put together from blocks whose size is a power of 2 and
// whose start is a multiple of it.
void appendRange(confine::Rules& rules, std::uint32_t number, std::uint32_t first, std::uint32_t count,
                 std::vector<seccomp::ArgCheck> more = {}) {
  const std::uint32_t end = first + count;
  while (first < end) {
    const std::uint32_t aligned = first == 0 ? std::uint32_t{1} << 31 : first & (~first + 1);
    const std::uint32_t block = std::min(aligned, std::bit_floor(end - first));
    seccomp::Rule rule{number, {{0, 0xffffffffU & ~(block - 1), first}}};
    rule.checks.insert(rule.checks.end(), more.begin(), more.end());
    rules.push_back(std::move(rule));
    first += block;
  }
}

}  // namespace

confine::Rules threadRules(int first, int count, std::span<const int> timers, std::span<const int> signals) {
  confine::Rules rules;
  for (const int timer : timers) {
    rules.push_back(confine::callOn(__NR_timerfd_settime, timer));
  }
  for (const int signal : signals) {
    rules.push_back(confine::callOn(__NR_write, signal));
  }
  appendRange(rules, __NR_setsockopt, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count),
              {{1, 0xffffffffU, SOL_SOCKET}, {2, 0xffffffffU, SO_PEEK_OFF}});
  // Neither an address nor anything besides the bytes.
  for (const auto& [number, flags] : {std::pair{__NR_sendto, kSendFlags}, {__NR_recvfrom, kPeekFlags}}) {
    appendRange(rules, number, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count),
                {{3, 0xffffffffU, static_cast<std::uint32_t>(flags)}, {4, ~std::uint64_t{0}, 0}});
  }
  for (const std::uint32_t number : {__NR_recvmsg, __NR_writev, __NR_shutdown, __NR_close}) {
    appendRange(rules, number, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count));
  }
  return rules;
}

}  // namespace vmmhost::kvm::virtio::vsock
