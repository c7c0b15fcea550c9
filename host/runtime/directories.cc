#include "host/runtime/directories.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "host/config/text.h"
#include "host/runtime/files.h"

namespace vmmhost::runtime {
namespace {

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

Fd openPrivate(const std::string& path, const char* variable) {
  if (path.empty() || path[0] != '/') {
    throw Error(ErrorCode::kInvalidArgument,
                path.empty()
                    ? "there is no place for vmmhost's files"
                    : std::string(variable) + ": the path " + config::inQuotes(path, 1024) + " is not absolute",
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
    // As deep as needed; what is made on the way is private as the XDG base directory specification asks.
    std::filesystem::path made;
    for (const std::filesystem::path& part : parent) {
      made /= part;
      if (::mkdir(made.c_str(), 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES) {
        throw systemError("making the folder " + made.string(), errno);
      }
    }
  }
  const Fd anchor(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!anchor) {
    throw systemError("opening the folder " + parent.string(), errno);
  }
  Fd result = makeOwnFolder(anchor.get(), name, path);
  if (!result) {
    throw systemError("opening the folder " + path, ENOENT);
  }
  return result;
}

}  // namespace

Directories::Paths Directories::defaultPaths() {
  Paths paths;
  const bool root = ::geteuid() == 0;
  paths.runtime = fromEnvironment("VMMHOST_RUNTIME_DIR");
  if (paths.runtime.empty()) {
    // After `su` or `sudo` the variable may still name the folder of another user.
    const std::string xdg = absoluteFromEnvironment("XDG_RUNTIME_DIR");
    if (!xdg.empty() && belongsToCaller(xdg)) {
      paths.runtime = xdg + "/vmmhost";
    } else {
      paths.runtime = root ? "/run/vmmhost" : "/tmp/vmmhost-" + std::to_string(::geteuid());
    }
  }
  paths.state = fromEnvironment("VMMHOST_STATE_DIR");
  if (paths.state.empty()) {
    const std::string xdg = absoluteFromEnvironment("XDG_STATE_HOME");
    const std::string home = absoluteFromEnvironment("HOME");
    if (root) {
      paths.state = "/var/lib/vmmhost";
    } else if (!xdg.empty()) {
      paths.state = xdg + "/vmmhost";
    } else if (!home.empty()) {
      paths.state = home + "/.local/state/vmmhost";
    }
  }
  return paths;
}

Directories Directories::open(const Paths& paths) {
  Directories directories;
  directories.runtime_ = openPrivate(paths.runtime, "VMMHOST_RUNTIME_DIR");
  directories.state_ = openPrivate(paths.state, "VMMHOST_STATE_DIR");
  directories.paths_ = paths;
  return directories;
}

}  // namespace vmmhost::runtime
