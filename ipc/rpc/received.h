// Descriptors that came with messages, for a process that may not duplicate any: with duplicates the number of what an
// epoll instance watches has no bound that counts (each descriptor of a file counts anew). Internal.
//
// Cap'n Proto lends what it received and closes it with the capability that it came with; there is no way to have it
// without a duplicate. So it is given another descriptor to keep, an eventfd, under whose number the received one
// waits.
#pragma once

#include <kj/io.h>

#include "vmmhost/fd.h"

namespace vmmhost::rpc::received {

// Puts `descriptor` aside; what the library is to keep instead. Nothing where there is no room for that: `descriptor`
// is closed then, and what it came with goes without, since one too many is not to end the connection. Throws Error.
kj::AutoCloseFd putAside(kj::AutoCloseFd descriptor);
// What waits under this number, once; nothing if the number is not that of a substitute.
Fd take(int substitute) noexcept;

}  // namespace vmmhost::rpc::received
