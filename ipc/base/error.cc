#include "vmmhost/error.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

namespace vmmhost {

std::string_view errorCodeName(ErrorCode code) noexcept {
  static constexpr std::array<std::string_view, 16> kNames = {
      "unknown",          "invalidArgument",    "notFound",         "alreadyExists", "unsupported",       "unavailable",
      "permissionDenied", "failedPrecondition", "deadlineExceeded", "cancelled",     "resourceExhausted", "workerDied",
      "protocol",         "confinement",        "internal",         "supervisorDied"};
  const auto index = static_cast<std::size_t>(code);
  return index < kNames.size() ? kNames[index] : kNames[0];
}

Error Error::withMessage(std::string message) const {
  Error changed = *this;
  changed.message_ = std::move(message);
  return changed;
}

Error Error::withField(std::string_view field) const {
  const bool isOne = field.size() <= kMaxFieldBytes && std::all_of(field.begin(), field.end(), [](char character) {
                       return character >= 0x20 && character < 0x7f;
                     });
  Error changed = *this;
  changed.field_ = isOne ? field : std::string_view();
  return changed;
}

Error systemError(std::string_view what, int errnoValue) {
  ErrorCode code = ErrorCode::kInternal;
  bool retryable = false;
  switch (errnoValue) {
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ENXIO:
      code = ErrorCode::kNotFound;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = ErrorCode::kPermissionDenied;
      break;
    case EEXIST:
      code = ErrorCode::kAlreadyExists;
      break;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EAGAIN:
      code = ErrorCode::kResourceExhausted;
      retryable = true;
      break;
    case EISDIR:
    case EINVAL:
    case ELOOP:
    case ENAMETOOLONG:
      code = ErrorCode::kInvalidArgument;
      break;
    default:
      break;
  }
  // generic_category().message is thread-safe, strerror is not.
  return Error(code, std::string(what) + ": " + std::generic_category().message(errnoValue), {}, retryable);
}

}  // namespace vmmhost
