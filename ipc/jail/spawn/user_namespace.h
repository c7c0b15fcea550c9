// Whether user namespaces can be had here, and if not, what stands in the way.
#pragma once

#include <string>
#include <string_view>

#include "vmmhost/error.h"

namespace vmmhost::spawn {

inline constexpr std::string_view kChrootText =
    "this process runs in a chroot, where the kernel allows no user namespaces";
inline constexpr std::string_view kChrootHint =
    "enter that root folder by pivot_root, as container managers do, and not by chroot; or run outside of it";

// Makes one, in a process that ends at once. 0, or the errno.
int tryUserNamespace();

// Whether the root folder of this process is another than its mount namespace's (chroot(2)). Who may change its root
// finds out in any case. Who may not, does so unless the folder is a mount point; then the answer is no.
bool isInChroot();

// What clone3 with this errno means for a process of this name ("worker") that was to have namespaces of its own.
Error namespaceError(const std::string& name, int errnoValue);

}  // namespace vmmhost::spawn
