// Opens a file that is about to run with the caller's rights, and refuses it if somebody else could have put it there.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "vmmhost/fd.h"

namespace vmmhost::plugin {

struct TrustedFile {
  Fd file;           // O_RDONLY | O_CLOEXEC: what was checked is what this descriptor reads
  std::string path;  // absolute, without links, "." and ".."
  struct stat status = {};
};

// Walks `path` (absolute) from the root, component by component. The file, every folder and every link on the way
// must belong to root or to the caller's effective user, and nobody else may be able to write the file or the folders;
// a sticky folder such as /tmp is passed through, but never holds the file itself. The file must be regular and not a
// link. `what` begins the messages, e.g. "plugin" or "worker". Throws kConfinement for what is not trusted, kNotFound
// for what is not there, kInvalidArgument for what is no regular file.
TrustedFile openTrusted(const std::string& path, std::string_view what);

}  // namespace vmmhost::plugin
