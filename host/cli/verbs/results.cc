#include "host/cli/verbs/results.h"

#include "host/cli/base/output.h"
#include "host/cli/verbs/run_report.h"
#include "host/config/json_writer.h"

namespace vmmhost::cli {

void printDone(const std::string& name, const char* done, bool json) {
  if (json) {
    config::JsonWriter writer;
    print(writer.beginObject().member("name", name).member("done", done).endObject().str() + '\n');
  }
}

void printOutcome(const std::string& name, schema::Outcome::Reader outcome, bool json) {
  if (json) {
    config::JsonWriter writer;
    writer.beginObject().member("name", name).key("outcome").raw(outcomeJson(outcome));
    print(writer.endObject().str() + '\n');
  }
}

}  // namespace vmmhost::cli
