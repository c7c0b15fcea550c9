#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "vmmhost/worker/worker.h"

namespace vmmhost::worker {
namespace {

// A pipe takes up to PIPE_BUF bytes in one piece.
constexpr std::size_t kMaxRecord = 4096;
constexpr char kLevels[] = {'D', 'I', 'W', 'E'};

// Descriptor 2 is the process's one log; so is the count of what it did not take.
std::atomic<std::uint64_t> droppedRecords{0};

std::size_t escape(std::string_view message, char* out, std::size_t space) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::size_t length = 0;
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      if (length + 1 > space) {
        break;
      }
      out[length++] = c;
    } else {
      if (length + 4 > space) {
        break;
      }
      out[length++] = '\\';
      out[length++] = 'x';
      out[length++] = kHex[byte >> 4];
      out[length++] = kHex[byte & 15];
    }
  }
  return length;
}

}  // namespace

void log(LogLevel level, std::string_view message) noexcept {
  char record[kMaxRecord];
  std::size_t length = 0;
  record[length++] = kLevels[static_cast<std::size_t>(level)];
  record[length++] = ' ';
  const std::uint64_t dropped = droppedRecords.load(std::memory_order_relaxed);
  if (dropped != 0) {
    length += static_cast<std::size_t>(
        std::snprintf(record + length, 64, "[%llu records lost] ", static_cast<unsigned long long>(dropped)));
  }
  length += escape(message, record + length, kMaxRecord - 1 - length);
  record[length++] = '\n';
  const int before = errno;
  if (::write(2, record, length) == static_cast<ssize_t>(length)) {
    droppedRecords.fetch_sub(dropped, std::memory_order_relaxed);
  } else {
    droppedRecords.fetch_add(1, std::memory_order_relaxed);
  }
  errno = before;
}

}  // namespace vmmhost::worker
