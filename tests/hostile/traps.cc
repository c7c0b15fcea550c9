#include "tests/hostile/traps.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace vmmhost::hostile {
namespace {

constexpr char kSecret[] = "not for workers\n";

}  // namespace

Traps::Traps(std::string token) : token_(std::move(token)) {
  for (const char* folder : kTrapFolders) {
    char secret[108];
    trapPath(secret, folder, token_.c_str(), Trap::kSecret);
    const Fd file(::open(secret, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!file || ::write(file.get(), kSecret, sizeof kSecret - 1) != sizeof kSecret - 1) {
      continue;  // not there, or closed to this caller
    }
    ::fchmod(file.get(), 0666);
    folders_.push_back(folder);
    secrets_.push_back(secret);
    for (const auto& [trap, type] : {std::pair(Trap::kStream, SOCK_STREAM), std::pair(Trap::kDatagram, SOCK_DGRAM)}) {
      char path[108];
      trapPath(path, folder, token_.c_str(), trap);
      listenAt(path, type, false);
    }
  }
  for (const auto& [trap, type] : {std::pair(Trap::kStream, SOCK_STREAM), std::pair(Trap::kDatagram, SOCK_DGRAM)}) {
    char name[108];
    trapPath(name, "", token_.c_str(), trap);
    listenAt(name, type, true);
  }
}

void Traps::listenAt(const std::string& path, int type, bool isAbstract) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (isAbstract) {
    address.sun_path[0] = '\0';
  }
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (isAbstract ? 0 : 1));
  Fd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    return;
  }
  if (!isAbstract) {
    ::chmod(path.c_str(), 0777);
  }
  if (type == SOCK_DGRAM || ::listen(socket.get(), 8) == 0) {
    listeners_.push_back({isAbstract ? "@" + path.substr(1) : path, std::move(socket)});
  }
}

Traps::~Traps() {
  for (const std::string& secret : secrets_) {
    ::unlink(secret.c_str());
  }
  for (const Listener& listener : listeners_) {
    if (listener.path[0] == '/') {
      ::unlink(listener.path.c_str());
    }
  }
}

std::string Traps::damage() const {
  std::string found;
  for (const Listener& listener : listeners_) {
    pollfd ready{listener.socket.get(), POLLIN, 0};
    found += ::poll(&ready, 1, 0) != 0 ? "the listener " + listener.path + " was reached; " : "";
    found += listener.path[0] == '/' && ::access(listener.path.c_str(), F_OK) != 0 ? listener.path + " is gone; " : "";
  }
  for (const std::string& secret : secrets_) {
    struct stat status {};
    const bool isSame = ::stat(secret.c_str(), &status) == 0 && status.st_size == sizeof kSecret - 1;
    found += isSame ? "" : secret + " has changed; ";
  }
  return found;
}

bool Traps::coversFolder(const std::string& folder) const {
  return std::find(folders_.begin(), folders_.end(), folder) != folders_.end();
}

}  // namespace vmmhost::hostile
