// vmmhost pause: pauses a VM.
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/results.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"

namespace vmmhost::cli {

namespace {

int pause(const VmOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  client::await(io, client->pause());
  printDone(options.name, "paused", options.json);
  return kExitOk;
}

Usage usage() {
  return vmUsage(pause);
}

}  // namespace

const Verb kPauseVerb = {"pause", "Pause a VM", usage};

}  // namespace vmmhost::cli
