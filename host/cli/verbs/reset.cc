// vmmhost reset: starts the guest again from its boot.
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/results.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"

namespace vmmhost::cli {

namespace {

int reset(const VmOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  client::await(io, client->reset());
  printDone(options.name, "reset", options.json);
  return kExitOk;
}

Usage usage() {
  return vmUsage(reset);
}

}  // namespace

const Verb kResetVerb = {"reset", "Start the guest again from its boot", usage};

}  // namespace vmmhost::cli
