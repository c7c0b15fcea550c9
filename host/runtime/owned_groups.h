// The control groups of a VM that belongs to an embedding program: written down where whoever comes after the program's
// death finds them.
#pragma once

#include <string>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::runtime {

inline constexpr char kOwnedFolder[] = ".owned";  // of the runtime folder; no entry can have this name

class OwnedGroups {
 public:
  // A file of its own in kOwnedFolder of the runtime folder, locked for as long as the object lives. Throws Error.
  static OwnedGroups take(int runtimeFolder);
  OwnedGroups(OwnedGroups&&) noexcept = default;
  OwnedGroups& operator=(OwnedGroups&&) = delete;
  ~OwnedGroups();  // the groups are gone: nobody need know of them any more

  // The folders of the groups, absolute, the deepest first, before they are made. Throws Error.
  void write(const std::vector<std::string>& cgroups);

 private:
  OwnedGroups(Fd folder, Fd file, std::string name)
      : folder_(std::move(folder)), file_(std::move(file)), name_(std::move(name)) {}
  Fd folder_, file_;
  std::string name_;
};

// Removes the groups of those that are gone, and their files. A group that a process does not leave stays for the next
// call, after 2 s. Never throws.
void sweepOwnedGroups(int runtimeFolder) noexcept;

}  // namespace vmmhost::runtime
