#include "host/jailed/kernel_log.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string>
#include <utility>

#include "ipc/jail/seccomp/call_names.h"

namespace vmmhost::jailed {
namespace {

constexpr std::size_t kMaxRecord = 8192;  // PRINTK_MESSAGE_MAX and more
constexpr unsigned kRecordsATurn = 256;
constexpr auto kFirstPause = 1 * kj::MILLISECONDS;

// Behind "<priority and facility>,<number>,<time>,<flags>;", if the record is the kernel's: its facility is 0, while
// those that programs write have another.
std::string_view kernelText(std::string_view record) {
  unsigned priority = 0;
  const auto [end, error] = std::from_chars(record.data(), record.data() + record.size(), priority);
  const std::size_t text = record.find(';');
  if (error != std::errc() || priority > 7 || text == std::string_view::npos) {
    return {};
  }
  record.remove_prefix(text + 1);
  return record.substr(0, record.find('\n'));  // behind it are fields that say where it comes from
}

template <typename Number>
std::optional<Number> number(std::string_view text, int base = 10) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

// The value of `name`. Values have no blanks: names of programs that have are written in hexadecimal digits.
std::string_view field(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (word.size() > name.size() && word.starts_with(name) && word[name.size()] == '=') {
      return word.substr(name.size() + 1);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

bool isFirstPidNamespace() {
  std::array<char, 64> link;
  const ssize_t length = ::readlink("/proc/self/ns/pid", link.data(), link.size());
  // PROC_PID_INIT_INO, include/linux/proc_ns.h
  return length > 0 && std::string_view(link.data(), static_cast<std::size_t>(length)) == "pid:[4026531836]";
}

}  // namespace

std::optional<ForbiddenCall> parseForbiddenCall(std::string_view record, pid_t pid) {
  const std::string_view text = kernelText(record);
  if (!text.starts_with("audit: type=1326 ") || number<pid_t>(field(text, "pid")) != pid ||
      number<int>(field(text, "sig")) != SIGSYS) {
    return std::nullopt;
  }
  const auto architecture = number<std::uint32_t>(field(text, "arch"), 16);
  const auto call = number<std::int64_t>(field(text, "syscall"));
  if (!architecture || !call) {
    return std::nullopt;
  }
  return ForbiddenCall{*architecture, *call};
}

std::string describe(const ForbiddenCall& call) {
  std::string text = "system call " + std::to_string(call.number);
  if (call.architecture == AUDIT_ARCH_I386) {
    text += " of 32-bit programs";
  } else if (call.architecture == AUDIT_ARCH_X86_64) {
    const std::string_view name = seccomp::nameOfCallX86_64(call.number);
    text += name.empty() ? "" : " (" + std::string(name) + ")";
  }
  return text;
}

KernelLog KernelLog::open() {
  Fd records;
  if (isFirstPidNamespace()) {  // whose numbers the kernel writes
    records.reset(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (records && ::lseek(records.get(), 0, SEEK_END) < 0) {
      records.reset();
    }
  }
  return KernelLog(std::move(records));
}

kj::Promise<std::optional<ForbiddenCall>> KernelLog::find(kj::Timer& timer, pid_t pid, kj::Duration patience) {
  return look(timer, pid, timer.now() + patience, kFirstPause);
}

kj::Promise<std::optional<ForbiddenCall>> KernelLog::look(kj::Timer& timer, pid_t pid, kj::TimePoint end,
                                                          kj::Duration pause) {
  std::array<char, kMaxRecord> buffer;
  bool isAtEnd = false;
  for (unsigned count = 0; records_ && left_ > 0 && count < kRecordsATurn && !isAtEnd; ++count, --left_) {
    const ssize_t got = ::read(records_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      if (const auto call = parseForbiddenCall({buffer.data(), static_cast<std::size_t>(got)}, pid)) {
        return std::optional(*call);
      }
    } else if (got < 0 && errno == EAGAIN) {
      isAtEnd = true;
    } else if (got == 0 || (errno != EPIPE && errno != EINTR)) {  // EPIPE: some were overwritten before they were read
      records_.reset();
    }
  }
  if (!records_ || left_ == 0 || (isAtEnd && timer.now() >= end)) {
    return std::optional<ForbiddenCall>();
  }
  // A thread of the kernel writes them, which may come after the end of the process.
  return timer.afterDelay(isAtEnd ? pause : 0 * kj::NANOSECONDS).then([this, &timer, pid, end, pause, isAtEnd]() {
    return look(timer, pid, end, isAtEnd ? pause * 2 : pause);
  });
}

}  // namespace vmmhost::jailed
