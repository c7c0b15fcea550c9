// The folders of one entry, and which folders under the name of one are something else.
#pragma once

#include <string>

#include "host/runtime/directories.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::runtime {

inline constexpr char kLockFile[] = "lock";
inline constexpr char kExitFile[] = "exit.json";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kLogFile[] = "vmmhost.log";

// Their paths, for messages.
std::string runtimeShown(const Directories& directories, const EntryName& name);
std::string stateShown(const Directories& directories, const EntryName& name);

// Whether an open folder that has an entry's name is one. What has the name of a VM always was, whatever is in it. Of
// any other kind an entry's runtime folder has the lock file first and last, and its state folder kLogFile, kConfigFile
// or kExitFile (of the last two it may be the temporary file): one that has something, and not that, is somebody
// else's, and is left as it is.
bool isRuntimeEntry(const EntryName& name, int folder);
bool isStateEntry(const EntryName& name, int folder);

// What to throw where one has to be an entry's.
Error notAnEntry(const EntryName& name, const std::string& shown);

// As openOwnFolder; nothing as well for what is none.
Fd openRuntimeEntry(const Directories& directories, const EntryName& name);
Fd openStateEntry(const Directories& directories, const EntryName& name);

// Removes everything in an entry's state folder, last what shows that it is one: the outcome if it has one, since what
// is left by an interruption is still something that has ended. Best effort.
void emptyState(int folder) noexcept;

}  // namespace vmmhost::runtime
