// What the thread of a vsock device may do.
#pragma once

#include <span>

#include "worker-kvm/confine/rules.h"

namespace vmmhost::kvm::virtio::vsock {

// Moves bytes through descriptors [first, first + count) and closes them, sets `timer`, and writes to `signals`. It can
// receive no descriptor: there is no rule for sending any, and recvmsg on these sockets alone finds no room for them.
confine::Rules threadRules(int first, int count, int timer, std::span<const int> signals);

}  // namespace vmmhost::kvm::virtio::vsock
