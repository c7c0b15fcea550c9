// Wakes the control thread from the threads of virtual CPUs.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::kvm::threads {

// An eventfd. signal() from any thread: one system call, no memory, never blocks.
class Wake {
 public:
  Wake() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!fd_) {
      throw systemError("eventfd", errno);
    }
  }
  void signal() const noexcept {
    const std::uint64_t one = 1;
    // It can only fail when it is signalled already 2^64 times.
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  }
  // Forgets the signals so far.
  void drain() const noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &count, sizeof count);
  }
  int descriptor() const noexcept { return fd_.get(); }

 private:
  Fd fd_;
};

}  // namespace vmmhost::kvm::threads
