#include "host/config/json_writer.h"

#include <charconv>
#include <cmath>

#include "host/base/text.h"

namespace vmmhost::config {

void appendJsonString(std::string& out, std::string_view text) {
  constexpr char kHexDigits[] = "0123456789abcdef";
  out += '"';
  while (!text.empty()) {
    char32_t character = 0;
    const std::size_t length = utf8Length(text, character);
    if (length == 0) {
      out += "\xef\xbf\xbd";
      text.remove_prefix(1);
      continue;
    }
    switch (character) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        // DEL and C1 are allowed in JSON, but not everything that shows JSON survives them.
        if (character < 0x20 || (character >= 0x7f && character < 0xa0)) {
          out += "\\u00";
          out += kHexDigits[(character >> 4) & 0xf];
          out += kHexDigits[character & 0xf];
        } else {
          out += text.substr(0, length);
        }
    }
    text.remove_prefix(length);
  }
  out += '"';
}

void JsonWriter::newLine() {
  if (pretty_) {
    out_ += '\n';
    out_.append(2 * hasItems_.size(), ' ');
  }
}

void JsonWriter::beforeValue() {
  if (afterKey_) {
    afterKey_ = false;
    return;
  }
  if (!hasItems_.empty()) {
    if (hasItems_.back()) {
      out_ += ',';
    }
    hasItems_.back() = true;
    newLine();
  }
}

JsonWriter& JsonWriter::open(char bracket) {
  beforeValue();
  out_ += bracket;
  hasItems_.push_back(false);
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  const bool hadItems = hasItems_.back();
  hasItems_.pop_back();
  if (hadItems) {
    newLine();
  }
  out_ += bracket;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  beforeValue();
  appendJsonString(out_, name);
  out_ += pretty_ ? ": " : ":";
  afterKey_ = true;
  return *this;
}

JsonWriter& JsonWriter::text(std::string_view value) {
  beforeValue();
  appendJsonString(out_, value);
  return *this;
}

JsonWriter& JsonWriter::number(std::int64_t value) {
  beforeValue();
  out_ += std::to_string(value);
  return *this;
}

JsonWriter& JsonWriter::number(std::uint64_t value) {
  beforeValue();
  out_ += std::to_string(value);
  return *this;
}

JsonWriter& JsonWriter::number(double value) {
  beforeValue();
  if (!std::isfinite(value)) {
    out_ += "null";
    return *this;
  }
  char buffer[40];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);  // the shortest that reads back exactly
  out_.append(buffer, result.ptr);
  return *this;
}

JsonWriter& JsonWriter::boolean(bool value) {
  beforeValue();
  out_ += value ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::null() {
  beforeValue();
  out_ += "null";
  return *this;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
  beforeValue();
  for (const char character : json) {
    // A line break in a document is always between tokens: strings have theirs escaped.
    if (character == '\n') {
      newLine();
    } else {
      out_ += character;
    }
  }
  return *this;
}

}  // namespace vmmhost::config
