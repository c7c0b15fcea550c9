#include "host/plugin/watches.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "vmmhost/error.h"

namespace vmmhost::plugin {
namespace {

constexpr std::uint64_t kShares = 8;

}  // namespace

std::optional<std::uint64_t> watchesOfAUser() {
  std::uint64_t watches = 0;
  std::ifstream file("/proc/sys/fs/epoll/max_user_watches");
  file >> watches;
  return file ? std::optional(watches) : std::nullopt;
}

std::uint32_t furtherDescriptors(const LaunchPlan& plan, std::uint32_t wanted, std::optional<std::uint64_t> watches) {
  if (plan.epolls == 0 || !watches) {
    return wanted;
  }
  const std::uint64_t planned = std::uint64_t{plan.maxDescriptors} + plan.rings;
  const std::uint64_t most = *watches / kShares / plan.epolls;
  if (planned > most) {
    const std::uint64_t needed = planned * plan.epolls;
    throw Error(ErrorCode::kResourceExhausted,
                "the worker of this VM may come to " + std::to_string(needed) +
                    " watches of epoll, and fs.epoll.max_user_watches is " + std::to_string(*watches) +
                    ", of which a VM may have an eighth",
                "sudo sysctl fs.epoll.max_user_watches=" + std::to_string(needed * kShares) +
                    ", or give the VM fewer disks and network cards");
  }
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, most - planned));
}

}  // namespace vmmhost::plugin
