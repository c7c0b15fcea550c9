// What the thread of a vsock device may do.
#pragma once

#include <sys/socket.h>

#include <span>

#include "worker-kvm/confine/rules.h"

namespace vmmhost::kvm::virtio::vsock {

// Of all sends.
inline constexpr int kSendFlags = MSG_NOSIGNAL | MSG_DONTWAIT;

// Of what is read without being taken out of its socket.
inline constexpr int kPeekFlags = MSG_PEEK | MSG_DONTWAIT;

// Moves bytes through descriptors [first, first + count) and closes them, sets `timers`, and writes to `signals`. Of
// other descriptors it reaches none: by read(), write() and the like those of disks and of the host's connection would
// be in its reach.
confine::Rules threadRules(int first, int count, std::span<const int> timers, std::span<const int> signals);

}  // namespace vmmhost::kvm::virtio::vsock
