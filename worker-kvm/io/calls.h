// System calls that are made for every packet, without the C library's wrappers: those are points where a thread may be
// cancelled, which nobody here is, and in a process of several threads each of them calls two more functions that
// change what is said about the thread. An error is a negative errno value, as from the kernel; none is tried again.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>

#if defined(__x86_64__) && !defined(VMMHOST_SANITIZED)
#include <asm/unistd.h>
#else
#include <unistd.h>
#endif

namespace vmmhost::kvm::io {

#if defined(__x86_64__) && !defined(VMMHOST_SANITIZED)

namespace detail {

inline long call(long number, long first, const void* second, std::size_t third, long fourth = 0) noexcept {
  register long inR10 asm("r10") = fourth;
  register long inR8 asm("r8") = 0;
  register long inR9 asm("r9") = 0;
  long result = number;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(first), "S"(second), "d"(third), "r"(inR10), "r"(inR8), "r"(inR9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace detail

// Without a time-out.
inline long waitForEvents(int epoll, epoll_event* events, std::size_t most) noexcept {
  return detail::call(__NR_epoll_wait, epoll, events, most, -1);
}
inline long writeTo(int descriptor, const void* data, std::size_t bytes) noexcept {
  return detail::call(__NR_write, descriptor, data, bytes);
}
// To who is connected.
inline long sendTo(int socket, const void* data, std::size_t bytes, int flags) noexcept {
  return detail::call(__NR_sendto, socket, data, bytes, flags);
}
inline long receiveFrom(int socket, void* data, std::size_t most, int flags) noexcept {
  return detail::call(__NR_recvfrom, socket, data, most, flags);
}

#else

// Sanitizers have to see what is read and written.
namespace detail {

inline long resultOf(long result) noexcept {
  return result < 0 ? -errno : result;
}

}  // namespace detail

inline long waitForEvents(int epoll, epoll_event* events, std::size_t most) noexcept {
  return detail::resultOf(::epoll_wait(epoll, events, static_cast<int>(most), -1));
}
inline long writeTo(int descriptor, const void* data, std::size_t bytes) noexcept {
  return detail::resultOf(::write(descriptor, data, bytes));
}
inline long sendTo(int socket, const void* data, std::size_t bytes, int flags) noexcept {
  return detail::resultOf(::send(socket, data, bytes, flags));
}
inline long receiveFrom(int socket, void* data, std::size_t most, int flags) noexcept {
  return detail::resultOf(::recv(socket, data, most, flags));
}

#endif

}  // namespace vmmhost::kvm::io
