// Small operations on the folders of a user, by descriptor; nothing here follows a link.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::runtime {

// A folder below `parent`, or nothing if it is not there. Throws kConfinement if it is a link, no folder, or not the
// caller's own and private; `shown` names it in messages.
Fd openOwnFolder(int parent, const std::string& name, const std::string& shown);

// Makes the folder if it is missing and opens it as above. Nothing: it was removed in between.
Fd makeOwnFolder(int parent, const std::string& name, const std::string& shown);

// What openOwnFolder checks, for an open folder.
void checkOwnFolder(int folder, const std::string& shown);

// The content of a regular file; nothing if it is missing, no regular file, or longer than `limit`.
std::optional<std::string> readSmallFile(int folder, const std::string& name, std::size_t limit);

// Writes a temporary file ".NAME.new" and renames it. kYes: it is on the disk afterwards. One writer at a time in one
// folder. Throws Error.
enum class Durable { kYes, kNo };
void replaceFile(int folder, const std::string& name, std::string_view content, Durable durable = Durable::kYes);

// The file `name` of a folder, locked by flock, whose holders remove it under the lock; `createFlags`: O_CREAT, O_EXCL.
// Nothing: somebody holds it, or it is not there, or is already. Throws Error.
Fd lockRemovable(int folder, const std::string& name, int createFlags);

// Names in a folder without "." and ".."; at most `limit`.
std::vector<std::string> folderEntries(int folder, std::size_t limit = 4096);

// Removes everything in a folder, `last` at the end and `kept` not at all. Best effort; false if something stayed.
bool emptyFolder(int folder, const std::string& last = {}, const std::string& kept = {}, int depth = 8) noexcept;

// A name for files within an entry: 1 to 64 bytes of [A-Za-z0-9_.-], not starting with '.'.
bool isPlainFileName(std::string_view name) noexcept;

}  // namespace vmmhost::runtime
