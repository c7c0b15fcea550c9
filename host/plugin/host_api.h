// The host's side of the C boundary: error objects, the table of host functions, guarded calls.
#pragma once

#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "host/plugin/log_sink.h"
#include "vmmhost/error.h"
#include "vmmhost/plugin.h"

// What a plugin sees as an opaque type.
struct vmmhost_error {
  std::optional<vmmhost::Error> value;  // of the last error_set
};

namespace vmmhost::plugin {

// The table that every plugin gets; static.
const vmmhost_host_api& hostApi() noexcept;

// What vmmhost_config::host_private points to: config_json asks `write` once.
struct ConfigText {
  std::function<std::string()> write;
  std::optional<std::string> text;
};

// While it lives, what plugins log on this thread goes to `sink` (empty: dropped).
class LogScope {
 public:
  explicit LogScope(const LogSink& sink) noexcept;
  ~LogScope();
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;

 private:
  const LogSink* previous_;
};

// Text of a plugin as it may be kept and shown: printable, at most `maxBytes`; `fallback` for NULL.
std::string pluginText(const char* text, std::size_t maxBytes, std::string_view fallback = {});

inline constexpr std::size_t kMaxLineBytes = 1024;     // summaries, hints, descriptions
inline constexpr std::size_t kMaxMessageBytes = 4096;  // messages of errors

// 1 to 32 bytes of [a-z0-9-].
bool isBackendName(std::string_view name) noexcept;

// "backend NAME: MESSAGE" with the rest of `error`.
Error backendError(std::string_view backend, const Error& error);

// Carries out `call(vmmhost_error*)`, which answers whether it succeeded; throws what the plugin reported otherwise.
// A C++ exception of the plugin becomes kInternal that names it.
template <typename Call>
void callPlugin(std::string_view backend, const char* function, const LogSink& sink, Call&& call) {
  vmmhost_error error;
  bool succeeded = false;
  std::string escaped;
  {
    const LogScope scope(sink);
    try {
      succeeded = call(&error);
    } catch (const std::exception& exception) {
      escaped = "an exception left its function " + std::string(function) + ": " +
                pluginText(exception.what(), kMaxLineBytes);
    } catch (...) {
      escaped = "an exception left its function " + std::string(function);
    }
  }
  if (!escaped.empty()) {
    throw backendError(backend, Error(ErrorCode::kInternal, escaped, "report this to its maker"));
  }
  if (!succeeded) {
    throw backendError(backend, error.value
                                    ? *error.value
                                    : Error(ErrorCode::kInternal,
                                            std::string("its function ") + function + " failed without saying why",
                                            "report this to its maker"));
  }
}

}  // namespace vmmhost::plugin
