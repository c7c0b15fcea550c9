// vmmhost stop: ends a VM by force.
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/results.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"

namespace vmmhost::cli {

namespace {

int stop(const VmOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  const auto response = client::await(io, client->stop(schema::EndKind::STOPPED, "by the stop verb"));
  printOutcome(options.name, response.getOutcome(), options.json);
  return kExitOk;
}

Usage usage() {
  return vmUsage(stop);
}

}  // namespace

const Verb kStopVerb = {"stop", "End a VM by force", usage};

}  // namespace vmmhost::cli
