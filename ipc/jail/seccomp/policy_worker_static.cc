// For a static executable in an empty root: everything that it works with was handed to it.
#include "ipc/jail/seccomp/call_table.h"

namespace vmmhost::seccomp {

void addOwnOfStatic(Policy& policy, const BaseParameters& parameters) {
  if (parameters.makesMemoryFiles) {
    addUnsealedMemoryFiles(policy);
  }
}

}  // namespace vmmhost::seccomp
