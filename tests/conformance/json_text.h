// Looks values up in JSON that the product wrote.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vmmhost::conformance {

class Json {
 public:
  // Fails (Failure) for what is no JSON.
  explicit Json(const std::string& text);
  ~Json();
  Json(const Json&) = delete;
  Json& operator=(const Json&) = delete;

  const std::string& text() const { return text_; }
  // `path` is "member.member"; an item of an array is a number. What is not there, or of another type, is a Failure.
  bool has(const std::string& path) const;
  std::string string(const std::string& path) const;
  std::int64_t number(const std::string& path) const;
  bool boolean(const std::string& path) const;
  std::size_t size(const std::string& path) const;  // of an array or object; 0 if it is not there
  std::vector<std::string> strings(const std::string& path) const;

 private:
  struct Value;
  const Value& at(const std::string& path) const;
  std::string text_;
  std::unique_ptr<Value> root_;
};

}  // namespace vmmhost::conformance
