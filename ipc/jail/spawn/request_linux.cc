// What a request must not ask for. Plans of plugins cannot come to any of it; here it is said once for whoever plans.
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "ipc/jail/spawn/plan.h"

namespace vmmhost::spawn {
namespace {

[[noreturn]] void fault(const Request& request, const std::string& what) {
  throw Error(ErrorCode::kInternal, "the plan of the " + request.name + " " + what);
}

// Absolute, below the root, and one that leads there as it is written.
bool isPlainPath(std::string_view path) {
  if (path.size() < 2 || path.front() != '/' || path.find('\0') != std::string_view::npos) {
    return false;
  }
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view name = path.substr(0, path.find('/'));
    if (name.empty() || name == "." || name == "..") {
      return false;
    }
    path.remove_prefix(name.size());
  }
  return true;
}

void validateBinds(const Request& request) {
  std::size_t checked = 0;
  for (const Bind& bind : request.jail.binds) {
    if (bind.descriptor < 0) {
      if (!bind.readOnly) {
        fault(request, "binds " + bind.source + " writable, but by its path alone");
      }
      continue;
    }
    if (!isPlainPath(bind.target)) {
      fault(request, "binds " + bind.source + " to '" + bind.target + "', which is no plain absolute path");
    }
    struct stat info = {};
    if (++checked > kMaxCheckedBinds) {
      fault(request, "binds more than " + std::to_string(kMaxCheckedBinds) + " checked files");
    }
    if (::fstat(bind.descriptor, &info) != 0) {
      throw systemError("root of the " + request.name + ": " + bind.source, errno);
    }
    // A socket is a way to whoever listens, past every namespace.
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "root of the " + request.name + ": " + bind.source + " is neither a regular file nor a folder");
    }
  }
}

}  // namespace

void validate(const Request& request) {
  validateBinds(request);
}

}  // namespace vmmhost::spawn
