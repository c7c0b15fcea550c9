// Files that a user names by descriptors of the command: `--kernel /dev/fd/3`, `--disk <(...)`.
#pragma once

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::cli {

// Replaces each such path of `config` by one under which another process of this user finds the same file as long as
// this process lives. Throws Error naming field and path where the descriptor is not open, or is nothing that a VM can
// be given, and says what it is. True if standard input was among them: then it is no input for the guest.
bool nameOwnFiles(schema::VmConfig::Builder config);

}  // namespace vmmhost::cli
