// Unix sockets in folders that are held by descriptor: however long the folder's path is, and no link is followed.
#pragma once

#include <string>

#include "vmmhost/fd.h"

namespace vmmhost::runtime {

// In a VM's runtime folder: reaches its guest's vsock ports (host/vm/vsock.h).
inline constexpr char kVsockSocket[] = "vsock";

// A listening, non-blocking socket `name` in the folder, mode 0600. It takes the place of what has that name, once it
// listens: who sees it can connect. Throws Error.
Fd listenIn(int folder, const std::string& name, int backlog);

// A non-blocking socket that is connected to `name` in the folder. Never waits. Throws kNotFound if it is not there, no
// socket, or nobody listens on it; kUnavailable (retryable) if nobody accepts just now.
Fd connectIn(int folder, const std::string& name);

}  // namespace vmmhost::runtime
