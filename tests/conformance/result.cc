#include "tests/conformance/result.h"

#include <algorithm>
#include <cstdio>

#include "host/base/build_info.h"
#include "host/base/text.h"
#include "host/config/json_writer.h"
#include "host/plugin/abilities.h"

namespace vmmhost::conformance {

namespace {

constexpr std::size_t kMaxDetail = 4096;

void writeStrings(config::JsonWriter& json, const char* name, const std::vector<std::string>& values) {
  json.key(name).beginArray();
  for (const std::string& value : values) {
    json.text(value);
  }
  json.endArray();
}

// What has a name, what that means, and which of these cases need it.
void writeAbilities(config::JsonWriter& json, const std::vector<Result>& results) {
  json.key("abilities").beginArray();
  for (const plugin::Ability& ability : plugin::kAbilities) {
    std::vector<std::string> needing;
    for (const Result& result : results) {
      if (std::find(result.needs.begin(), result.needs.end(), ability.name) != result.needs.end()) {
        needing.push_back(result.name);
      }
    }
    json.beginObject().member("name", ability.name).member("text", ability.text);
    writeStrings(json, "cases", needing);
    json.endObject();
  }
  json.endArray();
}

void writeCase(config::JsonWriter& json, const std::string& name, const std::string& text) {
  json.beginObject().member("name", name).member("area", areaOf(name));
  if (!text.empty()) {
    json.member("text", text);
  }
}

}  // namespace

const char* kindName(Result::Kind kind) {
  switch (kind) {
    case Result::Kind::kPassed:
      return "passed";
    case Result::Kind::kFailed:
      return "failed";
    case Result::Kind::kNotAdvertised:
      return "notAdvertised";
    case Result::Kind::kAbsent:
      return "needsAbsent";
  }
  return "failed";
}

Counts count(const std::vector<Result>& results) {
  Counts counts;
  for (const Result& result : results) {
    switch (result.kind) {
      case Result::Kind::kPassed:
        ++counts.passed;
        break;
      case Result::Kind::kFailed:
        ++counts.failed;
        break;
      case Result::Kind::kNotAdvertised:
        ++counts.notAdvertised;
        break;
      case Result::Kind::kAbsent:
        ++counts.absent;
        break;
    }
  }
  return counts;
}

std::string resultsJson(const Subject& subject, const std::vector<Result>& results) {
  const Counts counts = count(results);
  config::JsonWriter json;
  json.beginObject().member("vmmhost", VMMHOST_VERSION);
  json.key("backend")
      .beginObject()
      .member("name", subject.name)
      .member("path", subject.path)
      .member("version", subject.version)
      .member("description", subject.description)
      .member("acceleration", subject.acceleration)
      .member("place", subject.place())
      .member("summary", subject.summary)
      .member("instructionsPerSecond", subject.instructionsPerSecond);
  writeStrings(json, "capabilities", subject.capabilities);
  json.endObject();
  json.member("conforms", counts.failed == 0);
  json.key("counts")
      .beginObject()
      .member("passed", counts.passed)
      .member("failed", counts.failed)
      .member("notAdvertised", counts.notAdvertised)
      .member("needsAbsent", counts.absent)
      .endObject();
  writeAbilities(json, results);
  json.key("cases").beginArray();
  for (const Result& result : results) {
    writeCase(json, result.name, result.text);
    json.member("result", kindName(result.kind));
    writeStrings(json, "needs", result.needs);
    if (!result.detail.empty()) {
      json.member("detail", result.detail);
    }
    if (!result.observed.empty()) {
      json.member("observed", result.observed);
    }
    json.member("milliseconds", result.milliseconds).endObject();
  }
  return json.endArray().endObject().str();
}

std::string resultLine(const Result& result) {
  static constexpr const char* kWords[] = {"ok", "FAILED", "not advertised", "not run"};
  char line[160];
  std::snprintf(line, sizeof(line), "%-14s  %-58s %6lld ms", kWords[static_cast<int>(result.kind)],
                printable(result.name, 58).c_str(), static_cast<long long>(result.milliseconds));
  std::string text = line;
  if (!result.detail.empty()) {
    text += "\n                " + printable(result.detail, kMaxDetail);
  } else if (!result.observed.empty()) {
    text += "  " + printable(result.observed, 160);
  }
  return text;
}

std::string summaryLine(const Subject& subject, const std::vector<Result>& results) {
  const Counts counts = count(results);
  std::string text = "backend " + subject.name + ": " + std::to_string(counts.passed) + " passed, " +
                     std::to_string(counts.failed) + " failed";
  if (counts.notAdvertised > 0) {
    text += ", " + std::to_string(counts.notAdvertised) + " not advertised and refused as it should be";
  }
  if (counts.absent > 0) {
    text += ", " + std::to_string(counts.absent) + " not run";
  }
  return text;
}

std::string casesJson(const Cases& cases) {
  config::JsonWriter json;
  json.beginArray();
  for (const Case& one : cases) {
    writeCase(json, one.name, one.text);
    writeStrings(json, "needs", one.needs);
    json.endObject();
  }
  return json.endArray().str();
}

std::string casesText(const Cases& cases) {
  std::string text;
  for (const Case& one : cases) {
    text += one.name;
    for (std::size_t index = 0; index < one.needs.size(); ++index) {
      text += (index == 0 ? "  needs " : ", ") + one.needs[index];
    }
    text += '\n';
  }
  return text;
}

std::string encodeVerdict(const Result& result) {
  std::string text;
  for (std::string part : {std::string(kindName(result.kind)), result.detail, result.observed}) {
    text += printable(part, kMaxDetail) + '\0';
  }
  return text;
}

bool decodeVerdict(const std::string& text, Result& result) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0, end = 0; (end = text.find('\0', begin)) != std::string::npos; begin = end + 1) {
    parts.push_back(text.substr(begin, end - begin));
  }
  if (parts.size() != 3) {
    return false;
  }
  for (const auto kind :
       {Result::Kind::kPassed, Result::Kind::kFailed, Result::Kind::kNotAdvertised, Result::Kind::kAbsent}) {
    if (parts[0] == kindName(kind)) {
      result.kind = kind;
      result.detail = parts[1];
      result.observed = parts[2];
      return true;
    }
  }
  return false;
}

}  // namespace vmmhost::conformance
