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

}  // namespace vmmhost::hostile
