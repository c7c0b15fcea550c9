// epoll for a worker that may not make instances of it. The kernel counts what all instances of a user watch together:
// one worker that made them as it liked could take all there is, and then nobody of its user could wait for anything.
// So the spawn stub makes as many as the launch plan asks for, and in a program with the SDK epoll_create1() gives
// these out, to Cap'n Proto's event loop as to anybody else.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace vmmhost::epolls {

inline constexpr unsigned kMaxEpolls = 128;

struct Inherited {
  int firstDescriptor = 0;  // the others follow
  unsigned count = 0;
  bool operator==(const Inherited&) const = default;
};

// How the host tells a worker of them: an argument, "epolls=" with both numbers. That of rings (vmmhost/rings.h), where
// there are any, is behind it.
std::string argumentFor(const Inherited& epolls);
// Nothing for an argument that is about something else, or garbled.
std::optional<Inherited> parseArgument(std::string_view argument) noexcept;

// In a worker, before the first is wanted: from now on epoll_create1() gives out those that the arguments of the
// process tell of, each once, and fails with EMFILE when none is left. Without such an argument it makes new ones, as
// ever. Returns whether there was one.
bool takeInherited(std::span<char* const> arguments);

}  // namespace vmmhost::epolls
