// The QEMU Machine Protocol as bytes: framing, parsing and formatting, without any I/O.
//
// QEMU carries a guest that may have broken out into it, so that what it says is hostile: bounded, parsed strictly,
// reduced to the few fields that are used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qemubackend {

// Cuts a byte stream into lines. QMP sends one JSON object a line, ended by CR LF.
class LineReader {
 public:
  static constexpr std::size_t kMaxLineBytes = std::size_t{64} << 10;

  // Takes bytes in. Call next until it gives nothing before the next feed: that bounds what is kept.
  void feed(std::string_view bytes) { buffer_.append(bytes); }
  // The next whole line without its end, or nothing. Throws Error(kProtocol) as soon as a line is longer than
  // kMaxLineBytes, whether it has ended or not.
  std::optional<std::string> next();

 private:
  std::string buffer_;
  std::size_t scanned_ = 0;  // no line end before here
};

// A line's meaning; fields that its kind does not have are empty.
struct QmpMessage {
  enum class Kind { kGreeting, kResult, kError, kEvent };
  Kind kind = Kind::kEvent;
  std::uint64_t id = 0;     // result, error
  std::string name;         // event
  std::string reason;       // event SHUTDOWN, RESET: e.g. "guest-reset"; BLOCK_IO_ERROR: the error's text
  std::string node;         // event BLOCK_IO_ERROR: of the disk
  bool guest = false;       // event SHUTDOWN, RESET: the guest's own doing
  std::string action;       // event GUEST_PANICKED
  std::string description;  // error
  std::string status;       // result of query-status: e.g. "paused"
  // Result of query-balloon: the bytes of memory outside the balloon. The guest has its say in it: it may be negative.
  std::optional<std::int64_t> actual;
};

// Parses one line. Throws Error(kProtocol) for anything that is not a message of QMP: not JSON, nested deeper than 16,
// a member twice, a wrong type, a reply without an id that is a number.
QmpMessage parseQmpMessage(std::string_view line);

// A command's line. `arguments` is a JSON object, or empty for none; both are constants of the caller.
std::string formatQmpCommand(std::uint64_t id, std::string_view command, std::string_view arguments = {});

}  // namespace qemubackend
