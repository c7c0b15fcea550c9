// System calls without the C library in between.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace vmmhost::hostile {

template <typename... Arguments>
int raw(long number, Arguments... arguments) {
  return ::syscall(number, arguments...) < 0 ? errno : 0;
}

// For calls that make a descriptor: it is given back, to be able to tell.
template <typename... Arguments>
int rawOpen(long number, Arguments... arguments) {
  const long made = ::syscall(number, arguments...);
  if (made < 0) {
    return errno;
  }
  ::close(static_cast<int>(made));
  return 0;
}

}  // namespace vmmhost::hostile
