// vmmhost version: what this build is, and what it speaks.
#include <capnp/common.h>

#include <string>

#include "host/base/build_info.h"
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/json_writer.h"
#include "vmmhost/plugin.h"
#include "vmmhost/schema/host.capnp.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::cli {

namespace {

int version(bool json) {
  const auto pair = [](unsigned major, unsigned minor) { return std::to_string(major) + '.' + std::to_string(minor); };
  const std::string control = pair(schema::CONTROL_MAJOR, schema::CONTROL_MINOR);
  const std::string worker = pair(schema::PROTOCOL_MAJOR, schema::PROTOCOL_MINOR);
  const std::string abi = pair(VMMHOST_PLUGIN_ABI_MAJOR, VMMHOST_PLUGIN_ABI_MINOR);
  const std::string capnp = std::to_string(CAPNP_VERSION_MAJOR) + '.' + std::to_string(CAPNP_VERSION_MINOR) + '.' +
                            std::to_string(CAPNP_VERSION_MICRO);
  if (json) {
    config::JsonWriter writer;
    writer.beginObject()
        .member("version", VMMHOST_VERSION)
        .member("controlProtocol", control)
        .member("workerProtocol", worker)
        .member("pluginAbi", abi)
        .member("capnproto", capnp)
        .endObject();
    printLine(writer.str());
  } else {
    printLine(kBuild);
    printLine("control protocol " + control + ", worker protocol " + worker + ", plugin ABI " + abi + ", Cap'n Proto " +
              capnp);
  }
  return kExitOk;
}

Usage usage() {
  return machineUsage(version);
}

}  // namespace

const Verb kVersionVerb = {"version", "Print versions", usage};

}  // namespace vmmhost::cli
