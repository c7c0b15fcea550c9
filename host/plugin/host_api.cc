#include "host/plugin/host_api.h"

#include <algorithm>
#include <cstring>

#include "host/base/build_info.h"
#include "host/base/text.h"

namespace vmmhost::plugin {
namespace {

constexpr bool isSame(std::uint32_t given, ErrorCode code) {
  return given == static_cast<std::uint32_t>(code);
}
static_assert(isSame(VMMHOST_ERROR_INVALID_ARGUMENT, ErrorCode::kInvalidArgument));
static_assert(isSame(VMMHOST_ERROR_NOT_FOUND, ErrorCode::kNotFound));
static_assert(isSame(VMMHOST_ERROR_ALREADY_EXISTS, ErrorCode::kAlreadyExists));
static_assert(isSame(VMMHOST_ERROR_UNSUPPORTED, ErrorCode::kUnsupported));
static_assert(isSame(VMMHOST_ERROR_UNAVAILABLE, ErrorCode::kUnavailable));
static_assert(isSame(VMMHOST_ERROR_PERMISSION_DENIED, ErrorCode::kPermissionDenied));
static_assert(isSame(VMMHOST_ERROR_RESOURCE_EXHAUSTED, ErrorCode::kResourceExhausted));
static_assert(isSame(VMMHOST_ERROR_INTERNAL, ErrorCode::kInternal));

// The C function `log` carries no context, and a plugin is called from one thread at a time: the sink of the call
// that is under way on this thread.
thread_local const LogSink* currentSink = nullptr;

// Nothing below may throw into a plugin: memory that ran out costs the text, not the process.

void errorSet(vmmhost_error* error, std::uint32_t code, const char* message, const char* hint, int retryable) {
  if (error == nullptr) {
    return;
  }
  try {
    const bool known = code > 0 && code <= static_cast<std::uint32_t>(ErrorCode::kInternal);
    std::string text = pluginText(message, kMaxMessageBytes);
    if (text.empty()) {
      text = "failed without a message";
    }
    error->value.emplace(known ? static_cast<ErrorCode>(code) : ErrorCode::kInternal, std::move(text),
                         pluginText(hint, kMaxLineBytes), retryable != 0);
  } catch (...) {
  }
}

void errorField(vmmhost_error* error, const char* field) {
  if (error == nullptr || !error->value || field == nullptr) {
    return;
  }
  try {
    // One more than is kept, so that what is longer is not taken for a field.
    error->value = error->value->withField({field, ::strnlen(field, Error::kMaxFieldBytes + 1)});
  } catch (...) {
  }
}

void logLine(int level, const char* message) {
  if (currentSink == nullptr || !*currentSink || message == nullptr) {
    return;
  }
  try {
    (*currentSink)(std::clamp<int>(level, VMMHOST_LOG_DEBUG, VMMHOST_LOG_ERROR), pluginText(message, kMaxMessageBytes));
  } catch (...) {
  }
}

const char* configJson(const vmmhost_config* config) {
  if (config == nullptr || !VMMHOST_HAS_FIELD(config, vmmhost_config, host_private) ||
      config->host_private == nullptr) {
    return nullptr;
  }
  // A plugin sees the configuration as constant; its text is made when first asked for.
  auto* text = const_cast<ConfigText*>(static_cast<const ConfigText*>(config->host_private));
  try {
    if (!text->text) {
      text->text = text->write();
    }
    return text->text->c_str();
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

const vmmhost_host_api& hostApi() noexcept {
  static constexpr vmmhost_host_api kApi = {
      sizeof(vmmhost_host_api), VMMHOST_PLUGIN_ABI, kBuild.data(), &errorSet, &logLine, &configJson, &errorField};
  return kApi;
}

LogScope::LogScope(const LogSink& sink) noexcept : previous_(currentSink) {
  currentSink = &sink;
}
LogScope::~LogScope() {
  currentSink = previous_;
}

std::string pluginText(const char* text, std::size_t maxBytes, std::string_view fallback) {
  if (text == nullptr) {
    return std::string(fallback);
  }
  // One more than is kept, so that printable() sees that it has to cut.
  return printable(std::string_view(text, ::strnlen(text, maxBytes + 1)), maxBytes);
}

bool isBackendName(std::string_view name) noexcept {
  return !name.empty() && name.size() <= 32 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

Error backendError(std::string_view backend, const Error& error) {
  return error.withMessage("backend " + std::string(backend) + ": " + error.message());
}

}  // namespace vmmhost::plugin
