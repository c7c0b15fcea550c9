#include "host/base/rotating_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cerrno>

#include "vmmhost/error.h"

namespace vmmhost {

RotatingFile::RotatingFile(int directory, std::string name, std::uint64_t maxBytes)
    : directory_(duplicate(directory)), name_(std::move(name)), maxBytes_(maxBytes) {
  open();
  if (!file_) {
    throw systemError("opening " + name_, errno);
  }
}

void RotatingFile::open() {
  file_.reset(::openat(directory_.get(), name_.c_str(),
                       O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  struct stat info = {};
  size_ = file_ && ::fstat(file_.get(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

void RotatingFile::append(std::string_view bytes) noexcept {
  if (size_ + bytes.size() > maxBytes_ && size_ > 0) {
    ::renameat(directory_.get(), name_.c_str(), directory_.get(), (name_ + ".1").c_str());
    open();
  }
  while (!bytes.empty()) {
    const ssize_t written = file_ ? ::write(file_.get(), bytes.data(), bytes.size()) : -1;
    if (written <= 0) {
      if (written < 0 && errno == EINTR) {
        continue;
      }
      ++failures_;
      return;
    }
    size_ += static_cast<std::uint64_t>(written);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace vmmhost
