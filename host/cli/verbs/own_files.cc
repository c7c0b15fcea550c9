#include "host/cli/verbs/own_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <climits>
#include <optional>
#include <string>
#include <string_view>

#include "vmmhost/error.h"

namespace vmmhost::cli {

namespace {

// The descriptor that a path names (proc(5), fd(4)); nothing for other paths.
std::optional<int> descriptorOf(std::string_view path) {
  if (path == "/dev/stdin") {
    return STDIN_FILENO;
  }
  for (const std::string_view prefix : {"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"}) {
    if (!path.starts_with(prefix)) {
      continue;
    }
    const std::string_view digits = path.substr(prefix.size());
    int number = -1;
    const auto [stop, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (code == std::errc() && stop == digits.data() + digits.size() && number >= 0) {
      return number;
    }
  }
  return std::nullopt;
}

const char* kindOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a folder";
    case S_IFIFO:
      return "a pipe";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
      return "a terminal or another device of characters";
    default:
      return "no file";
  }
}

// Its own path where it still is what is found there, which says more to people; else one by this process.
std::string pathOf(int descriptor, const struct stat& info) {
  std::string own = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(descriptor);
  char target[PATH_MAX];
  const ssize_t length = ::readlink(own.c_str(), target, sizeof target);
  struct stat found = {};
  if (length > 0 && length < static_cast<ssize_t>(sizeof target) && target[0] == '/') {
    std::string path(target, static_cast<std::size_t>(length));
    if (::stat(path.c_str(), &found) == 0 && found.st_dev == info.st_dev && found.st_ino == info.st_ino) {
      return path;
    }
  }
  return own;
}

// True if it is standard input.
bool nameOwnFile(const std::string& field, schema::FileRef::Builder file) {
  const std::string path(file.getPath().begin(), file.getPath().size());
  const std::optional<int> descriptor = descriptorOf(path);
  if (!descriptor) {
    return false;
  }
  const std::string subject = field + ": " + path;
  struct stat info = {};
  // What this program has opened itself is closed on exec, and is nothing that anybody has named.
  const int flags = ::fcntl(*descriptor, F_GETFD);
  if (flags < 0 || (flags & FD_CLOEXEC) != 0 || ::fstat(*descriptor, &info) != 0) {
    throw Error(ErrorCode::kNotFound, subject + " is not open",
                "in a shell, `" + std::to_string(*descriptor) + "<FILE` opens it for this command")
        .withField(field);
  }
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    throw Error(ErrorCode::kInvalidArgument, subject + " is " + kindOf(info.st_mode),
                "a VM takes files that can be read anywhere, and again: put the content into one")
        .withField(field);
  }
  file.setPath(pathOf(*descriptor, info));
  return *descriptor == STDIN_FILENO;
}

}  // namespace

bool nameOwnFiles(schema::VmConfig::Builder config) {
  bool isInput = false;
  auto boot = config.getBoot();
  if (boot.hasKernel()) {
    isInput |= nameOwnFile("boot.kernel", boot.getKernel());
  }
  if (boot.hasInitrd()) {
    isInput |= nameOwnFile("boot.initrd", boot.getInitrd());
  }
  if (boot.hasFirmware()) {
    isInput |= nameOwnFile("boot.firmware", boot.getFirmware());
  }
  auto disks = config.getDisks();
  for (unsigned index = 0; index < disks.size(); ++index) {
    isInput |= nameOwnFile("disks[" + std::to_string(index) + "]", disks[index].getFile());
  }
  return isInput;
}

}  // namespace vmmhost::cli
