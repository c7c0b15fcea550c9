#include "host/runtime/directories.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "host/base/environment.h"
#include "host/base/text.h"
#include "host/runtime/files.h"
#include "host/runtime/owned_groups.h"

namespace vmmhost::runtime {
namespace {

constexpr char kRuntimeVariable[] = "VMMHOST_RUNTIME_DIR";
constexpr char kStateVariable[] = "VMMHOST_STATE_DIR";

std::string fromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// The XDG base directory specification: a relative path is to be ignored.
std::string absoluteFromEnvironment(const char* name) {
  std::string value = fromEnvironment(name);
  return value.starts_with('/') ? value : std::string();
}

bool belongsToCaller(const std::string& folder) {
  struct stat status = {};
  return ::stat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == ::geteuid();
}

// Makes what is missing on the way to a folder; private, as the XDG base directory specification asks.
void makeParents(const std::filesystem::path& folder, const char* variable) {
  std::filesystem::path made;
  int failure = 0;
  std::string failed;
  for (const std::filesystem::path& part : folder) {
    made /= part;
    if (::mkdir(made.c_str(), 0700) == 0 || errno == EEXIST || failure != 0) {
      continue;
    }
    failure = errno;  // unless it is there all the same
    failed = made.string();
  }
  std::error_code ignored;
  if (failure != 0 && !std::filesystem::exists(folder, ignored)) {
    const Error error = systemError("making the folder " + failed, failure);
    throw Error(error.code(), error.message(), std::string(variable) + " names another place");
  }
}

// Somebody else was there first: in a folder such as /tmp nobody but its owner and root can remove it.
bool isAnothers(int parent, const std::string& name) {
  struct stat status = {};
  return ::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_uid != ::geteuid();
}

Fd openPrivate(const std::string& path, const char* variable) {
  if (path.empty() || path[0] != '/') {
    throw Error(ErrorCode::kInvalidArgument,
                path.empty() ? "there is no place for vmmhost's files"
                             : std::string(variable) + ": the path " + inQuotes(path, 1024) + " is not absolute",
                std::string("set ") + variable + " to an absolute path");
  }
  const std::filesystem::path folder = std::filesystem::path(path).lexically_normal();
  std::filesystem::path parent = folder.parent_path();
  std::string name = folder.filename().string();
  if (name.empty()) {  // "/x/"
    name = parent.filename().string();
    parent = parent.parent_path();
  }
  if (name.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the folder " + path + " cannot be vmmhost's own");
  }
  std::error_code error;
  if (!std::filesystem::exists(parent, error)) {
    makeParents(parent, variable);
  }
  const Fd anchor(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!anchor) {
    throw systemError("opening the folder " + parent.string(), errno);
  }
  try {
    if (Fd result = makeOwnFolder(anchor.get(), name, path)) {
      return result;
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kConfinement && isAnothers(anchor.get(), name)) {
      throw Error(error.code(), error.message(),
                  std::string("only its owner and root can take it away; `export ") + variable + "=$HOME/.local/" +
                      (std::string_view(variable) == kRuntimeVariable ? "run" : "state") +
                      "/vmmhost` names a place of your own");
    }
    throw;
  }
  throw systemError("opening the folder " + path, ENOENT);
}

}  // namespace

Directories::Paths Directories::defaultPaths() {
  Paths paths;
  const bool root = ::geteuid() == 0;
  paths.runtime = fromEnvironment(kRuntimeVariable);
  if (paths.runtime.empty()) {
    // After `su` or `sudo` the variable may still name the folder of another user.
    const std::string xdg = absoluteFromEnvironment("XDG_RUNTIME_DIR");
    if (!xdg.empty() && belongsToCaller(xdg)) {
      paths.runtime = below(xdg, "/vmmhost");
    } else {
      paths.runtime = root ? "/run/vmmhost" : "/tmp/vmmhost-" + std::to_string(::geteuid());
    }
  }
  paths.state = fromEnvironment(kStateVariable);
  if (paths.state.empty()) {
    const std::string xdg = absoluteFromEnvironment("XDG_STATE_HOME");
    const std::string home = absoluteFromEnvironment("HOME");
    if (root) {
      paths.state = "/var/lib/vmmhost";
    } else if (!xdg.empty()) {
      paths.state = below(xdg, "/vmmhost");
    } else if (!home.empty()) {
      paths.state = below(home, "/.local/state/vmmhost");
    }
  }
  return paths;
}

Directories Directories::open(const Paths& paths) {
  Directories directories;
  directories.runtime_ = openRuntime(paths.runtime);
  directories.state_ = openPrivate(paths.state, kStateVariable);
  directories.paths_ = paths;
  return directories;
}

Fd Directories::openRuntime(const std::string& path) {
  Fd folder = openPrivate(path, kRuntimeVariable);
  sweepOwnedGroups(folder.get());
  return folder;
}

}  // namespace vmmhost::runtime
