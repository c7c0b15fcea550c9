// The file "record" of a runtime entry: lines of KEY=VALUE.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "host/runtime/directories.h"

namespace vmmhost::runtime {

inline constexpr char kRecordFile[] = "record";
inline constexpr std::size_t kMaxRecordBytes = 64 * 1024;

// Throws kInvalidArgument for text with a line break in it.
std::string formatRecord(const Record& record);
// Nothing for text that formatRecord does not write; keys that are not known are passed over.
std::optional<Record> parseRecord(std::string_view text);

}  // namespace vmmhost::runtime
