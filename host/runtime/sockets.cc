#include "host/runtime/sockets.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdio>

namespace vmmhost::runtime {
namespace {

// Names beyond 64 bytes are not made here.
sockaddr_un addressOf(int folder, const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (name.empty()) {
    std::snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", folder);
  } else {
    std::snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder, name.c_str());
  }
  return address;
}

Fd newSocket() {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    throw systemError("making a socket", errno);
  }
  return socket;
}

}  // namespace

Fd listenIn(int folder, const std::string& name, int backlog) {
  Fd socket = newSocket();
  const std::string unready = '.' + name;
  ::unlinkat(folder, unready.c_str(), 0);
  const sockaddr_un address = addressOf(folder, unready);
  // Before bind, the mode of the socket is that of the file that bind makes.
  if (::fchmod(socket.get(), 0600) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw systemError("making the socket " + name, errno);
  }
  if (::listen(socket.get(), backlog) != 0 || ::renameat(folder, unready.c_str(), folder, name.c_str()) != 0) {
    const int error = errno;
    ::unlinkat(folder, unready.c_str(), 0);
    throw systemError("listening on the socket " + name, error);
  }
  return socket;
}

Fd connectIn(int folder, const std::string& name) {
  const Fd target(::openat(folder, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status = {};
  if (!target || ::fstat(target.get(), &status) != 0) {
    throw errno == ENOENT ? Error(ErrorCode::kNotFound, "there is no socket " + name) : systemError(name, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(ErrorCode::kNotFound, name + " is no socket");
  }
  Fd socket = newSocket();
  const sockaddr_un address = addressOf(target.get(), {});
  // Of a Unix socket that does not block: it is connected at once, or fails.
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    switch (errno) {
      case ECONNREFUSED:
        throw Error(ErrorCode::kNotFound, "nobody listens on the socket " + name);
      case EAGAIN:
        throw Error(ErrorCode::kUnavailable, "too many wait for the socket " + name, {}, true);
      default:
        throw systemError("connecting to the socket " + name, errno);
    }
  }
  return socket;
}

}  // namespace vmmhost::runtime
