// How many descriptors a worker may have, by what its instances of epoll can come to watch: the kernel counts that by
// user (epoll(7), /proc/sys/fs/epoll/max_user_watches).
#pragma once

#include <cstdint>
#include <optional>

#include "host/plugin/registry.h"

namespace vmmhost::plugin {

// What each user may watch; nothing where the kernel does not say.
std::optional<std::uint64_t> watchesOfAUser();

// How many of `wanted` descriptors the worker of `plan` may have beside those of the plan, within an eighth of
// `watches`: each of its instances can watch every descriptor, and every file that a ring holds. Throws
// kResourceExhausted where the plan itself is too much.
std::uint32_t furtherDescriptors(const LaunchPlan& plan, std::uint32_t wanted, std::optional<std::uint64_t> watches);

}  // namespace vmmhost::plugin
