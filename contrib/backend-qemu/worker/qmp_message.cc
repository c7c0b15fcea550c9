#include "worker/qmp_message.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "vmmhost/error.h"
#include "worker/json_text.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;

namespace {

// Deeper than anything in QMP (the capabilities of a greeting are three deep).
constexpr int kMaxDepth = 16;
// Texts that are kept go into messages for people.
constexpr std::size_t kMaxKeptBytes = 1024;

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorCode::kProtocol, "QMP: " + what);
}

// Follows the parser through a message and keeps what parseQmpMessage uses. No document is built.
class Handler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  QmpMessage message;
  bool greeting = false;
  bool result = false;
  bool error = false;
  bool event = false;
  bool id = false;

  bool null() override { return scalar(); }
  bool boolean(bool value) override {
    if (at("data", "guest")) {
      message.guest = value;
    }
    return scalar();
  }
  bool number_integer(number_integer_t value) override {
    if (at("return", "actual")) {
      message.actual = value;
    }
    return scalar();
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (at("id")) {
      id = true;
      message.id = value;
    } else if (at("return", "actual")) {
      if (value > std::numeric_limits<std::int64_t>::max()) {
        broken("a size of more than 63 bits");
      }
      message.actual = static_cast<std::int64_t>(value);
    }
    return scalar();
  }
  bool number_float(number_float_t, const string_t&) override { return scalar(); }
  bool string(string_t& value) override {
    const auto keep = [&](std::string& into) { into = value.substr(0, kMaxKeptBytes); };
    if (at("event")) {
      keep(message.name);
    } else if (at("data", "reason")) {
      keep(message.reason);
    } else if (at("data", "node-name")) {
      keep(message.node);
    } else if (at("data", "action")) {
      keep(message.action);
    } else if (at("error", "desc")) {
      keep(message.description);
    } else if (at("return", "status")) {
      keep(message.status);
    } else if (depth_ == 1 && keyAt(1) == "id") {
      broken("an id that is not a number");
    }
    return scalar();
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    descend();
    return true;
  }
  bool end_object() override {
    ascend();
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 0) {
      broken("a message that is not an object");
    }
    descend();
    return true;
  }
  bool end_array() override {
    ascend();
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) {
      bool* seen = value == "QMP"      ? &greeting
                   : value == "return" ? &result
                   : value == "error"  ? &error
                   : value == "event"  ? &event
                                       : nullptr;
      if (seen != nullptr) {
        if (*seen) {
          broken("a member twice: " + value);
        }
        *seen = true;
      } else if (value == "id" && id) {
        broken("a member twice: id");
      }
    }
    if (depth_ <= 2) {
      keys_[depth_] = value.substr(0, 64);
    }
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool scalar() const {
    if (depth_ == 0) {
      broken("a message that is not an object");
    }
    return true;
  }
  void descend() {
    if (++depth_ > kMaxDepth) {
      broken("a message nested too deeply");
    }
    if (depth_ <= 2) {
      keys_[depth_].clear();
    }
  }
  void ascend() { --depth_; }
  const std::string& keyAt(int depth) const { return keys_[depth]; }
  bool at(std::string_view first) const { return depth_ == 1 && keys_[1] == first; }
  bool at(std::string_view first, std::string_view second) const {
    return depth_ == 2 && keys_[1] == first && keys_[2] == second;
  }

  int depth_ = 0;
  std::string keys_[3];  // the member being read, at depths 1 and 2
};

}  // namespace

std::optional<std::string> LineReader::next() {
  const std::size_t end = buffer_.find('\n', scanned_);
  if (std::min(end, buffer_.size()) > kMaxLineBytes) {
    broken("a line longer than 64 KiB");
  }
  if (end == std::string::npos) {
    scanned_ = buffer_.size();
    return std::nullopt;
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  scanned_ = 0;
  if (!line.empty() && line.back() == '\r') {
    line.pop_back();
  }
  return line;
}

QmpMessage parseQmpMessage(std::string_view line) {
  Handler handler;
  if (!nlohmann::json::sax_parse(line.begin(), line.end(), &handler)) {
    broken("a line that is not JSON");
  }
  const int kinds = int{handler.greeting} + int{handler.result} + int{handler.error} + int{handler.event};
  if (kinds != 1) {
    broken("a message that is not a greeting, reply or event");
  }
  if ((handler.result || handler.error) && !handler.id) {
    broken(handler.error ? "an error without an id: " + handler.message.description : "a reply without an id");
  }
  if (handler.event && handler.message.name.empty()) {
    broken("an event without a name");
  }
  handler.message.kind = handler.greeting ? QmpMessage::Kind::kGreeting
                         : handler.result ? QmpMessage::Kind::kResult
                         : handler.error  ? QmpMessage::Kind::kError
                                          : QmpMessage::Kind::kEvent;
  return std::move(handler.message);
}

std::string formatQmpCommand(std::uint64_t id, std::string_view command, std::string_view arguments) {
  std::string line = "{\"execute\":" + jsonString(command) + ",\"id\":" + std::to_string(id);
  if (!arguments.empty()) {
    line += ",\"arguments\":";
    line += arguments;
  }
  return line + "}\r\n";
}

}  // namespace qemubackend
