#include "tests/fake/strike.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace vmmhost::fake {
namespace {

constexpr int kFloodLines = 50'000;
constexpr char kFloodLine[] =
    "I the fake worker has nothing to say and says it again, with all its might and at great length\n";
constexpr std::size_t kGrowStep = std::size_t{1} << 20;
constexpr int kGrownExitCode = 9;

void sleepFor(std::uint32_t milliseconds) noexcept {
  timespec left = {static_cast<time_t>(milliseconds / 1000), static_cast<long>(milliseconds % 1000) * 1'000'000};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

// Not SIGKILL, nor SIGSTOP: the worker is process 1 of its PID namespace, which neither of them reaches from within.
// A sanitizer must not see the fault before the processor does.
[[noreturn, gnu::no_sanitize("undefined", "address")]] void die(std::string_view how) noexcept {
  if (how == "abort") {
    // The first process's SIGABRT is ignored too; the C library goes on with an instruction that faults.
    std::abort();
  }
  if (how == "trap") {
    __builtin_trap();
  }
  if (how == "syscall") {
    ::syscall(SYS_socket, 0, 0, 0);
  }
  *static_cast<volatile int*>(nullptr) = 1;
  __builtin_unreachable();
}

void sendNonsense() noexcept {
  std::array<unsigned char, 4096> bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) > 0) {
    bytes[0] = 0xff;  // more segments than any message has: never the beginning of a message by chance
    bytes[1] = 0xff;
    writeAll(kRpcDescriptor, bytes.data(), bytes.size());
  }
}

// A segment table for 32 words, and 8 of them.
void sendHalf() noexcept {
  std::array<std::uint32_t, 18> words = {0, 32};
  writeAll(kRpcDescriptor, words.data(), sizeof words);
}

void flood() noexcept {
  for (int line = 0; line < kFloodLines; ++line) {
    writeAll(STDERR_FILENO, kFloodLine, sizeof kFloodLine - 1);
  }
}

[[noreturn]] void grow() noexcept {
  while (true) {
    void* memory = ::mmap(nullptr, kGrowStep, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      constexpr char kLine[] = "E the fake worker gets no more memory\n";
      writeAll(STDERR_FILENO, kLine, sizeof kLine - 1);
      ::_exit(kGrownExitCode);
    }
    std::memset(memory, 1, kGrowStep);
  }
}

}  // namespace

void writeAll(int descriptor, const void* data, std::size_t bytes) noexcept {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::write(descriptor, at, bytes);
    if (count > 0) {
      at += count;
      bytes -= static_cast<std::size_t>(count);
      continue;
    }
    pollfd writable = {descriptor, POLLOUT, 0};
    if (count < 0 && (errno != EAGAIN || ::poll(&writable, 1, 1000) <= 0)) {
      return;
    }
  }
}

void waitForEver() noexcept {
  while (true) {
    sleepFor(1'000'000);
  }
}

void strikeProcess(const Fault& fault) noexcept {
  switch (fault.action) {
    case Action::kExit:
      ::_exit(static_cast<int>(fault.number));
    case Action::kDie:
      die(fault.argument);
    case Action::kSilent:
      waitForEver();
    case Action::kSlow:
      return sleepFor(fault.number);
    case Action::kNonsense:
      return sendNonsense();
    case Action::kHalf:
      sendHalf();
      waitForEver();
    case Action::kClose:
      ::shutdown(kRpcDescriptor, SHUT_RDWR);
      waitForEver();
    case Action::kFlood:
      return flood();
    case Action::kGrow:
      grow();
    case Action::kTwice:
    case Action::kLie:
    case Action::kError:
      return;
  }
}

}  // namespace vmmhost::fake
