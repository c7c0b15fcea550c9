// Bounded reading of one process's folder in /proc.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::confinement {

// What /proc/PID/task/TID/status tells; a field that the kernel did not tell stays empty.
struct ThreadStatus {
  std::optional<std::array<std::uint64_t, 4>> uids;  // real, effective, saved, file system
  std::optional<std::array<std::uint64_t, 4>> gids;
  std::optional<std::size_t> groups;  // how many supplementary ones
  std::optional<std::uint64_t> parent;
  bool isZombie = false;  // it has ended, and runs nothing any more
  std::optional<std::uint64_t> seccomp;
  std::optional<std::uint64_t> seccompFilters;
  std::optional<std::uint64_t> noNewPrivileges;
  // inheritable, permitted, effective, bounding, ambient
  std::array<std::optional<std::uint64_t>, 5> capabilities;
};
inline constexpr std::array<std::string_view, 5> kCapabilitySets = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};

struct Mount {
  std::string target;
  std::string type;
  bool readOnly = false;
  bool noSetuid = false;
  bool noDevices = false;
  bool noExecution = false;
};

// Pure parsers; what is malformed is left out.
ThreadStatus parseStatus(std::string_view text);
std::vector<Mount> parseMountinfo(std::string_view text);
std::vector<int> parseNumbers(std::string_view text);  // separated by blanks, as in task/TID/children

// Holds /proc/PID itself open, so that a process that later gets the same number is never mistaken for it. Functions
// answer nothing when the process is gone or the kernel refuses; error() then says why.
class ProcReader {
 public:
  explicit ProcReader(pid_t pid);

  explicit operator bool() const noexcept { return static_cast<bool>(folder_); }
  const std::string& error() const noexcept { return error_; }

  std::optional<std::string> link(const char* path);  // what a symbolic link says, e.g. "ns/pid"
  std::optional<std::string> text(const char* path, std::size_t limit);
  std::optional<std::vector<int>> numbers(const char* path);  // the numeric names in a folder, sorted
  std::optional<struct stat> status(const char* path);        // follows links
  // What the namespace `path` ("ns/user") lies right below, as link() would say it; user and PID namespaces only.
  std::optional<std::string> parentNamespace(const char* path);

 private:
  void note(const char* path, int errnoValue);

  Fd folder_;
  std::string name_;
  std::string error_;
};

}  // namespace vmmhost::confinement
