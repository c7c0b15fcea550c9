// vmmhost rm: removes what ended VMs left.
#include <memory>
#include <string>
#include <vector>

#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/json_writer.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

namespace {

struct RmOptions {
  std::vector<std::string> names;
  bool force = false;
  bool json = false;
};

void stopForRemoval(const runtime::Directories& directories, const std::string& name) {
  auto io = kj::setupAsyncIo();
  try {
    const auto client = connectTo(io, directories, name);
    client::await(io, client->stop(schema::EndKind::STOPPED, "removed by force"));
  } catch (const Error&) {
    if (!hasEnded(directories, name)) {  // else by itself, meanwhile
      throw;
    }
  }
}

int remove(const RmOptions& options) {
  const auto directories = openDirectories();
  int code = kExitOk;
  config::JsonWriter writer;
  writer.beginArray();
  for (const std::string& name : options.names) {
    writer.beginObject().member("name", name);
    try {
      config::validateVmName(name);
      if (options.force && runtime::find(directories, runtime::vmName(name)).alive) {
        stopForRemoval(directories, name);
      }
      // With --rm it has removed itself by now.
      try {
        runtime::remove(directories, runtime::vmName(name));
      } catch (const Error& error) {
        if (!options.force || error.code() != ErrorCode::kNotFound) {
          throw;
        }
      }
      writer.member("removed", true);
    } catch (const Error& error) {
      // The others are removed all the same.
      code = code == kExitOk ? exitCodeOf(error.code()) : code;
      writer.member("removed", false).key("error");
      writeErrorObject(writer, error);
      if (!options.json) {
        report(error, false);
      }
    }
    writer.endObject();
  }
  if (options.json) {
    printLine(writer.endArray().str());
  }
  return code;
}

Usage usage() {
  const auto options = std::make_shared<RmOptions>();
  return {
      .arguments = {vmsArgument(options->names)},
      .options = {{"-f,--force", kFlag, "End it first if it runs", &options->force}, jsonOption(options->json)},
      .carryOut = [options]() { return remove(*options); },
  };
}

}  // namespace

const Verb kRmVerb = {"rm", "Remove what ended VMs left", usage};

}  // namespace vmmhost::cli
