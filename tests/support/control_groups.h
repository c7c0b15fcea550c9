// Control groups of VMs, for tests of leaks.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <system_error>

namespace vmmhost::tests {

// The folders below `folder` whose names begin with "vmmhost-", with all that `end` says ("-" and the number of the
// process that hosts the VM; "": any). Those of others may vanish meanwhile, which is not the end of the search.
inline void findControlGroups(const std::filesystem::path& folder, const std::string& end,
                              std::set<std::string>& found) {
  namespace fs = std::filesystem;
  std::error_code error;
  for (fs::directory_iterator next(folder, error), last; !error && next != last; next.increment(error)) {
    std::error_code gone;
    if (!fs::is_directory(next->symlink_status(gone))) {
      continue;
    }
    const std::string name = next->path().filename().string();
    if (name.starts_with("vmmhost-") && name.ends_with(end)) {
      found.insert(next->path().string());
    }
    findControlGroups(next->path(), end, found);
  }
}

inline std::set<std::string> controlGroups(const std::string& end = "") {
  std::set<std::string> found;
  findControlGroups("/sys/fs/cgroup", end, found);
  return found;
}

}  // namespace vmmhost::tests
