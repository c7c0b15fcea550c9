// Owner of one file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

#include "vmmhost/error.h"

namespace vmmhost {

// Closes the descriptor when it goes. Movable, not copyable; -1 means none.
class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset(std::exchange(other.fd_, -1));
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept { return std::exchange(fd_, -1); }
  void reset(int fd = -1) noexcept {
    if (fd_ >= 0) {
      ::close(fd_);
    }
    fd_ = fd;
  }
  // A second descriptor for the same open file description; see the function below. Throws Error.
  Fd duplicate() const;

 private:
  int fd_ = -1;
};

// A second descriptor (close-on-exec, 3 or above) for the same open file description. Throws Error.
VMMHOST_API Fd duplicate(int fd);

inline Fd Fd::duplicate() const {
  return vmmhost::duplicate(fd_);
}

}  // namespace vmmhost
