// What the test lays out on the host for a worker to find: listeners and files in every folder that the caller can
// write, so that reaching one is seen.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::hostile {

// In each of them lie FOLDER/vmmhost-hostile-TOKEN.{stream,datagram,secret}. The first one is in the jail's root, too.
inline constexpr const char* kTrapFolders[] = {"/usr", "/usr/lib", "/run",     "/run/lock", "/var", "/var/tmp",
                                               "/tmp", "/home",    "/etc",     "/root",     "/opt", "/srv",
                                               "/mnt", "/var/lib", "/dev/shm", "/boot",     "/"};

enum class Trap { kStream, kDatagram, kSecret };

// The path of a trap; of an abstract socket of the same token where `folder` is empty.
inline void trapPath(char (&path)[108], const char* folder, const char* token, Trap trap) {
  static constexpr const char* kEndings[] = {"stream", "datagram", "secret"};
  std::snprintf(path, sizeof path, "%s/vmmhost-hostile-%s.%s", folder, token, kEndings[static_cast<int>(trap)]);
}

class Traps {
 public:
  explicit Traps(std::string token);
  ~Traps();
  Traps(const Traps&) = delete;
  Traps& operator=(const Traps&) = delete;

  // Which listener was reached, or which file is no longer as it was; empty: none.
  std::string damage() const;
  // Whether traps lie in the folder.
  bool coversFolder(const std::string& folder) const;

 private:
  struct Listener {
    std::string path;
    Fd socket;
  };
  void listenAt(const std::string& path, int type, bool isAbstract);

  std::string token_;
  std::vector<std::string> folders_;
  std::vector<std::string> secrets_;
  std::vector<Listener> listeners_;
};

}  // namespace vmmhost::hostile
