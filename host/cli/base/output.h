// What the command prints: results on standard output, everything else on standard error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host/config/json_writer.h"
#include "vmmhost/error.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::cli {

// Writes all of it to standard output. Throws Error when that fails.
void print(std::string_view text);
void printLine(std::string_view line);

// "vmmhost: <message>" on standard error; control characters are escaped. Never throws.
void note(std::string_view message) noexcept;

// The same for several lines that are our own, without the prefix.
void noteBlock(std::string_view text) noexcept;

// One error as text on standard error, or with --json as {"error": ...} on standard output. Returns the exit code.
int report(const Error& error, bool json) noexcept;
// The members of an error object.
void writeErrorObject(config::JsonWriter& json, const Error& error);

// A table with left-aligned columns, two blanks apart, no blanks at the ends of lines.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string str() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string formatBytes(std::uint64_t bytes);     // "512M", "1.5G", "1000"
std::string formatSeconds(std::int64_t seconds);  // "12s", "3m12s", "5h03m", "12d04h"
std::string formatNs(std::uint64_t ns);           // milliseconds with two digits, "12.34"

std::string stateName(schema::VmState state);  // as in the schema; a number if unknown
std::string endKindName(schema::EndKind kind);
std::string endCauseName(schema::EndCause cause);
// "powered off", "stopped: by the stop verb", "worker died: signal 9". One line, escaped.
std::string describeOutcome(schema::Outcome::Reader outcome);

std::string_view view(capnp::Text::Reader text);

}  // namespace vmmhost::cli
