// vmmhost resume: lets a paused VM go on.
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/results.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"

namespace vmmhost::cli {

namespace {

int resume(const VmOptions& options) {
  auto io = kj::setupAsyncIo();
  const auto directories = openDirectories();
  const auto client = connectTo(io, directories, options.name);
  client::await(io, client->resume());
  printDone(options.name, "resumed", options.json);
  return kExitOk;
}

Usage usage() {
  return vmUsage(resume);
}

}  // namespace

const Verb kResumeVerb = {"resume", "Let a paused VM go on", usage};

}  // namespace vmmhost::cli
