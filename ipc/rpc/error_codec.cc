// Errors as schema structures and as KJ exceptions.
#include <kj/debug.h>

#include <algorithm>
#include <charconv>

#include "ipc/rpc/connection.h"

namespace vmmhost::rpc {
namespace {

// A code has one number everywhere; a new one belongs into this list.
constexpr bool isSame(schema::ErrorCode wire, ErrorCode code) {
  return static_cast<std::uint32_t>(wire) == static_cast<std::uint32_t>(code);
}
static_assert(isSame(schema::ErrorCode::UNKNOWN, ErrorCode::kUnknown));
static_assert(isSame(schema::ErrorCode::INVALID_ARGUMENT, ErrorCode::kInvalidArgument));
static_assert(isSame(schema::ErrorCode::NOT_FOUND, ErrorCode::kNotFound));
static_assert(isSame(schema::ErrorCode::ALREADY_EXISTS, ErrorCode::kAlreadyExists));
static_assert(isSame(schema::ErrorCode::UNSUPPORTED, ErrorCode::kUnsupported));
static_assert(isSame(schema::ErrorCode::UNAVAILABLE, ErrorCode::kUnavailable));
static_assert(isSame(schema::ErrorCode::PERMISSION_DENIED, ErrorCode::kPermissionDenied));
static_assert(isSame(schema::ErrorCode::FAILED_PRECONDITION, ErrorCode::kFailedPrecondition));
static_assert(isSame(schema::ErrorCode::DEADLINE_EXCEEDED, ErrorCode::kDeadlineExceeded));
static_assert(isSame(schema::ErrorCode::CANCELLED, ErrorCode::kCancelled));
static_assert(isSame(schema::ErrorCode::RESOURCE_EXHAUSTED, ErrorCode::kResourceExhausted));
static_assert(isSame(schema::ErrorCode::WORKER_DIED, ErrorCode::kWorkerDied));
static_assert(isSame(schema::ErrorCode::PROTOCOL, ErrorCode::kProtocol));
static_assert(isSame(schema::ErrorCode::CONFINEMENT, ErrorCode::kConfinement));
static_assert(isSame(schema::ErrorCode::INTERNAL, ErrorCode::kInternal));
static_assert(isSame(schema::ErrorCode::SUPERVISOR_DIED, ErrorCode::kSupervisorDied));

constexpr std::size_t kMaxMessageBytes = 4096;
// Marks a packed Error inside a kj::Exception's description; the fields follow, separated by it.
constexpr char kSeparator = '\x1f';
constexpr std::string_view kMarker = "vmmhost-error\x1f";

std::string bounded(kj::StringPtr text) {
  return std::string(text.begin(), std::min(text.size(), kMaxMessageBytes));
}

std::string_view takeField(std::string_view& rest) {
  const std::size_t end = rest.find(kSeparator);
  const std::string_view field = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return field;
}

std::string withoutSeparator(std::string text) {
  std::replace(text.begin(), text.end(), kSeparator, ' ');
  return text;
}

}  // namespace

void writeError(const Error& error, schema::Error::Builder out) {
  out.setCode(static_cast<schema::ErrorCode>(error.code()));
  out.setMessage(error.message());
  out.setHint(error.hint());
  out.setRetryable(error.retryable());
  if (!error.field().empty()) {
    out.setField(error.field());
  }
}

Error readError(schema::Error::Reader error) {
  auto code = static_cast<ErrorCode>(error.getCode());
  // Of a later version, or one that no peer can say: that its supervisor is gone, a client finds by itself.
  if (code >= ErrorCode::kSupervisorDied) {
    code = ErrorCode::kUnknown;
  }
  const auto field = error.getField();
  return Error(code, bounded(error.getMessage()), bounded(error.getHint()), error.getRetryable())
      .withField({field.begin(), field.size()});
}

kj::Exception toKj(const Error& error) {
  auto type = kj::Exception::Type::FAILED;
  if (error.code() == ErrorCode::kWorkerDied || error.code() == ErrorCode::kSupervisorDied) {
    type = kj::Exception::Type::DISCONNECTED;
  } else if (error.code() == ErrorCode::kUnsupported) {
    type = kj::Exception::Type::UNIMPLEMENTED;
  } else if (error.retryable()) {
    type = kj::Exception::Type::OVERLOADED;
  }
  std::string packed(kMarker);
  packed += std::to_string(static_cast<unsigned>(error.code()));
  packed += kSeparator;
  packed += error.retryable() ? '1' : '0';
  packed += kSeparator;
  packed += withoutSeparator(error.message());
  packed += kSeparator;
  packed += withoutSeparator(error.hint());
  packed += kSeparator;
  packed += error.field();  // the last: who does not know of it does not look so far
  return kj::Exception(type, __FILE__, __LINE__, kj::heapString(packed.data(), packed.size()));
}

void raise(const Error& error) {
  kj::throwFatalException(toKj(error));
}

Error fromKj(const kj::Exception& exception) {
  const auto description = exception.getDescription();
  std::string_view text(description.begin(), description.size());
  if (text.starts_with(kMarker)) {
    text.remove_prefix(kMarker.size());
    const std::string_view number = takeField(text);
    unsigned code = 0;
    std::from_chars(number.data(), number.data() + number.size(), code);
    const bool retryable = takeField(text) == "1";
    const std::string message(takeField(text));
    const std::string hint(takeField(text));
    const bool isKnown = code <= static_cast<unsigned>(ErrorCode::kSupervisorDied);
    return Error(isKnown ? static_cast<ErrorCode>(code) : ErrorCode::kUnknown, message, hint, retryable)
        .withField(takeField(text));
  }
  const std::string message = bounded(kj::StringPtr(description));
  switch (exception.getType()) {
    case kj::Exception::Type::DISCONNECTED:
      return Error(ErrorCode::kWorkerDied, "the other side is gone: " + message);
    case kj::Exception::Type::OVERLOADED:
      return Error(ErrorCode::kResourceExhausted, message, {}, true);
    case kj::Exception::Type::UNIMPLEMENTED:
      return Error(ErrorCode::kUnsupported, message);
    default:
      return Error(ErrorCode::kInternal, message);
  }
}

}  // namespace vmmhost::rpc
