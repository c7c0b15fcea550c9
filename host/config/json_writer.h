// Writes one JSON document, for command output and for files that other programs read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vmmhost::config {

// Appends `text` as a JSON string. Bytes that are not UTF-8 become U+FFFD: the result is always valid JSON.
void appendJsonString(std::string& out, std::string_view text);

// Calls follow the document from left to right; commas, colons and indentation come by themselves. Wrong nesting is a
// programming error and gives a wrong document.
class JsonWriter {
 public:
  explicit JsonWriter(bool pretty = true) : pretty_(pretty) {}

  JsonWriter& beginObject() { return open('{'); }
  JsonWriter& endObject() { return close('}'); }
  JsonWriter& beginArray() { return open('['); }
  JsonWriter& endArray() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& text(std::string_view value);
  JsonWriter& number(std::int64_t value);
  JsonWriter& number(std::uint64_t value);
  JsonWriter& number(double value);  // null for what JSON cannot express
  JsonWriter& boolean(bool value);
  JsonWriter& null();
  // `json` is a document of its own, put in as it is (indented to fit if it is pretty itself).
  JsonWriter& raw(std::string_view json);

  // A member of an object.
  JsonWriter& member(std::string_view name, std::string_view value) { return key(name).text(value); }
  JsonWriter& member(std::string_view name, const char* value) { return key(name).text(value); }
  JsonWriter& member(std::string_view name, std::int64_t value) { return key(name).number(value); }
  JsonWriter& member(std::string_view name, std::int32_t value) { return key(name).number(std::int64_t{value}); }
  JsonWriter& member(std::string_view name, std::uint64_t value) { return key(name).number(value); }
  JsonWriter& member(std::string_view name, std::uint32_t value) { return key(name).number(std::uint64_t{value}); }
  JsonWriter& member(std::string_view name, double value) { return key(name).number(value); }
  JsonWriter& member(std::string_view name, bool value) { return key(name).boolean(value); }

  // The document so far; complete when every object and array is closed. No newline at the end.
  const std::string& str() const { return out_; }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  void beforeValue();
  void newLine();

  bool pretty_;
  bool afterKey_ = false;
  std::vector<bool> hasItems_;  // one per open object or array
  std::string out_;
};

}  // namespace vmmhost::config
