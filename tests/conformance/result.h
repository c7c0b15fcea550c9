// What came out of the cases, for people and as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/conformance/subject.h"

namespace vmmhost::conformance {

struct Result {
  enum class Kind {
    kPassed,
    kFailed,
    kNotAdvertised,  // and its refusal was observed
    kAbsent,         // something outside of the backend is missing: not run
  };
  std::string name;
  Kind kind = Kind::kFailed;
  std::string detail;    // why it failed, the refusal, or why it was not run
  std::string observed;  // of a passed case: what the backend was seen to do, where there is a choice
  std::vector<std::string> needs;
  std::int64_t milliseconds = 0;
  std::string text;  // the case's
};

const char* kindName(Result::Kind kind);  // as in JSON: "passed", "failed", "notAdvertised", "needsAbsent"

struct Counts {
  unsigned passed = 0;
  unsigned failed = 0;
  unsigned notAdvertised = 0;
  unsigned absent = 0;
};
Counts count(const std::vector<Result>& results);

std::string resultsJson(const Subject& subject, const std::vector<Result>& results);
// One line, and one more for what needs saying.
std::string resultLine(const Result& result);
std::string summaryLine(const Subject& subject, const std::vector<Result>& results);
std::string casesJson(const Cases& cases);
std::string casesText(const Cases& cases);

// What a case's own process tells its parent: strings that end with a zero byte.
std::string encodeVerdict(const Result& result);
// Fills kind, detail and observed. False: the text is not whole.
bool decodeVerdict(const std::string& text, Result& result);

}  // namespace vmmhost::conformance
