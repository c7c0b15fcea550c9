// The one structured error of vmmhost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#if defined(__GNUC__)
#define VMMHOST_API __attribute__((visibility("default")))
#else
#define VMMHOST_API
#endif

namespace vmmhost {

// Stable, machine-readable codes; the numbers are those of schemas/error.capnp and of vmmhost/plugin.h.
enum class ErrorCode : std::uint32_t {
  kUnknown = 0,
  kInvalidArgument = 1,
  kNotFound = 2,
  kAlreadyExists = 3,
  kUnsupported = 4,
  kUnavailable = 5,
  kPermissionDenied = 6,
  kFailedPrecondition = 7,
  kDeadlineExceeded = 8,
  kCancelled = 9,
  kResourceExhausted = 10,
  kWorkerDied = 11,
  kProtocol = 12,
  kConfinement = 13,
  kInternal = 14,
  kSupervisorDied = 15,  // only a client says so, of the supervisor that it called; from a peer it is kUnknown
};

// The name that JSON output and logs use for a code, e.g. "invalidArgument"; never empty.
VMMHOST_API std::string_view errorCodeName(ErrorCode code) noexcept;

// What a user can cause is an Error with a hint. The message is one sentence without a full stop that names
// the thing: file, field, device, VM, what was expected, what was found. Immutable; safe to copy between threads.
class VMMHOST_API Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message, std::string hint = {}, bool retryable = false)
      : code_(code), retryable_(retryable), message_(std::move(message)), hint_(std::move(hint)) {}

  // The same but for one part. A field is 1 to kMaxFieldBytes of printable ASCII; any other text leaves it empty, so
  // that one of a peer can be passed in as it is.
  Error withMessage(std::string message) const;
  Error withField(std::string_view field) const;
  static constexpr std::size_t kMaxFieldBytes = 256;

  ErrorCode code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }
  bool retryable() const noexcept { return retryable_; }
  // The field of the VM's configuration that is at fault, as JSON names it ("disks[0].format"); empty: none is, or an
  // older peer did not say. The message names it too.
  const std::string& field() const noexcept { return field_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  bool retryable_;
  std::string message_;
  std::string hint_;
  std::string field_;
};

// Carries `body` out. An Error that leaves it without a field has this one.
template <typename Body>
decltype(auto) aboutField(std::string_view field, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const Error& error) {
    if (!error.field().empty()) {
      throw;
    }
    throw error.withField(field);
  }
}

// An Error for a failed system call: "<what>: <strerror(errnoValue)>", with the code that fits the errno
// (ENOENT: notFound, EACCES and EPERM: permissionDenied, EMFILE, ENFILE, ENOMEM and ENOSPC: resourceExhausted).
VMMHOST_API Error systemError(std::string_view what, int errnoValue);

}  // namespace vmmhost
