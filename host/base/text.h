// Text from outside made fit for a message or a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vmmhost {

// One character of UTF-8 at the start of `text`: its length in bytes (1 to 4), or 0 if the bytes there are not
// well-formed (overlong forms, surrogates and what lies beyond U+10FFFF included). `text` is not empty.
std::size_t utf8Length(std::string_view text, char32_t& character) noexcept;

bool isUtf8(std::string_view text) noexcept;

// `text` with control characters (C0, DEL, C1), characters that turn the direction of writing, and bytes that are not
// UTF-8 shown as \n, \x1b, \u202e. What comes out has at most `maxBytes` bytes (3 or more), and ends with "..." if it
// was cut, which is between what stands for one character and the next. So what came out comes out unchanged again.
std::string printable(std::string_view text, std::size_t maxBytes = 256);

// printable() between double quotes, for names in messages.
std::string inQuotes(std::string_view text, std::size_t maxBytes = 64);

}  // namespace vmmhost
