#include "tests/conformance/json_text.h"

#include <nlohmann/json.hpp>

#include "tests/conformance/context.h"
#include "tests/conformance/options.h"

namespace vmmhost::conformance {

struct Json::Value {
  nlohmann::json json;
};

namespace {

const nlohmann::json* find(const nlohmann::json& root, const std::string& path) {
  const nlohmann::json* value = &root;
  for (const std::string& step : splitWords(path, '.')) {
    if (value->is_object() && value->contains(step)) {
      value = &(*value)[step];
    } else if (value->is_array() && step.find_first_not_of("0123456789") == std::string::npos &&
               std::stoul(step) < value->size()) {
      value = &(*value)[std::stoul(step)];
    } else {
      return nullptr;
    }
  }
  return value;
}

const nlohmann::json& need(const nlohmann::json& root, const std::string& path, bool rightType(const nlohmann::json&),
                           const char* type) {
  const nlohmann::json* value = find(root, path);
  check(value != nullptr && rightType(*value), path + " is not there as " + type + ": " + root.dump());
  return *value;
}

}  // namespace

Json::Json(const std::string& text) : text_(text), root_(std::make_unique<Value>()) {
  root_->json = nlohmann::json::parse(text, nullptr, false);
  check(!root_->json.is_discarded(), "this is no JSON: " + text.substr(0, 400));
}

Json::~Json() = default;

bool Json::has(const std::string& path) const {
  return find(root_->json, path) != nullptr;
}

std::string Json::string(const std::string& path) const {
  return need(
      root_->json, path, [](const nlohmann::json& value) { return value.is_string(); }, "a string");
}

std::int64_t Json::number(const std::string& path) const {
  return need(
      root_->json, path, [](const nlohmann::json& value) { return value.is_number_integer(); }, "a number");
}

bool Json::boolean(const std::string& path) const {
  return need(
      root_->json, path, [](const nlohmann::json& value) { return value.is_boolean(); }, "true or false");
}

std::size_t Json::size(const std::string& path) const {
  const nlohmann::json* value = find(root_->json, path);
  return value == nullptr ? 0 : value->size();
}

std::vector<std::string> Json::strings(const std::string& path) const {
  std::vector<std::string> all;
  for (std::size_t index = 0; index < size(path); ++index) {
    all.push_back(string(path + '.' + std::to_string(index)));
  }
  return all;
}

}  // namespace vmmhost::conformance
