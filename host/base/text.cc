#include "host/base/text.h"

#include <cstdint>

namespace vmmhost {

std::size_t utf8Length(std::string_view text, char32_t& character) noexcept {
  const auto byte = [&](std::size_t index) { return static_cast<std::uint8_t>(text[index]); };
  const std::uint8_t first = byte(0);
  if (first < 0x80) {
    character = first;
    return 1;
  }
  std::size_t length = 0;
  char32_t smallest = 0;
  if ((first & 0xe0) == 0xc0) {
    length = 2;
    smallest = 0x80;
    character = first & 0x1f;
  } else if ((first & 0xf0) == 0xe0) {
    length = 3;
    smallest = 0x800;
    character = first & 0x0f;
  } else if ((first & 0xf8) == 0xf0) {
    length = 4;
    smallest = 0x10000;
    character = first & 0x07;
  } else {
    return 0;
  }
  if (text.size() < length) {
    return 0;
  }
  for (std::size_t index = 1; index < length; ++index) {
    if ((byte(index) & 0xc0) != 0x80) {
      return 0;
    }
    character = (character << 6) | (byte(index) & 0x3f);
  }
  const bool surrogate = character >= 0xd800 && character <= 0xdfff;
  return character < smallest || character > 0x10ffff || surrogate ? 0 : length;
}

bool isUtf8(std::string_view text) noexcept {
  while (!text.empty()) {
    char32_t character = 0;
    const std::size_t length = utf8Length(text, character);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

void appendHex(std::string& out, std::uint32_t value, int digits) {
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) {
    out += kHexDigits[(value >> shift) & 0xf];
  }
}

bool changesDirection(char32_t character) {
  return character == 0x200e || character == 0x200f || character == 0x061c ||
         (character >= 0x202a && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
}

void appendControl(std::string& out, char32_t character) {
  switch (character) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  if (character < 0x100) {
    out += "\\x";
    appendHex(out, character, 2);
  } else {
    out += "\\u";
    appendHex(out, character, 4);
  }
}

}  // namespace

std::string printable(std::string_view text, std::size_t maxBytes) {
  static constexpr std::string_view kCut = "...";
  std::string out;
  std::size_t fits = 0;  // the last end of a character that leaves room for kCut
  while (!text.empty()) {
    char32_t character = 0;
    const std::size_t length = utf8Length(text, character);
    if (length == 0) {
      out += "\\x";
      appendHex(out, static_cast<std::uint8_t>(text[0]), 2);
    } else if (character < 0x20 || (character >= 0x7f && character < 0xa0) || changesDirection(character)) {
      appendControl(out, character);
    } else {
      out += text.substr(0, length);
    }
    if (out.size() > maxBytes) {
      out.resize(fits);
      return out.append(kCut);
    }
    if (out.size() + kCut.size() <= maxBytes) {
      fits = out.size();
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string inQuotes(std::string_view text, std::size_t maxBytes) {
  return '"' + printable(text, maxBytes) + '"';
}

}  // namespace vmmhost
