// TAP devices that a configuration names: looked at, and opened for a worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::net {

struct OpenedTap {
  std::vector<Fd> queues;  // non-blocking; IFF_NO_PI, IFF_VNET_HDR with a header of 12 bytes (virtio 1.2, 5.1.6)
  std::uint16_t mtu = 0;
};

// Opens the existing TAP device `name` with at most `mostQueues` queues: one, unless the device was made for several.
// `field` begins the message of errors. Throws Error: no such device (none is ever made), another kind of device, one
// that belongs to another user (to root alone, where it was made for nobody), or in use, which is retryable: of several
// that open one at the same moment at most one gets it.
OpenedTap openTap(const std::string& field, const std::string& name, std::size_t mostQueues);

}  // namespace vmmhost::net
