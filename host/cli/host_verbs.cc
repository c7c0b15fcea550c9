// vmmhost backends, vmmhost version: what this machine and this build have.
#include <capnp/common.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "host/base/build_info.h"
#include "host/base/paths.h"
#include "host/cli/exit_codes.h"
#include "host/cli/output.h"
#include "host/cli/verbs.h"
#include "host/client/environment.h"
#include "host/config/text.h"
#include "host/plugin/registry.h"
#include "vmmhost/plugin.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::cli {

namespace {

const char* accelerationName(plugin::Acceleration acceleration) {
  switch (acceleration) {
    case plugin::Acceleration::kHardware:
      return "hardware";
    case plugin::Acceleration::kEmulated:
      return "emulated";
    default:
      return "none";
  }
}

std::string rateText(std::uint64_t instructionsPerSecond) {
  if (instructionsPerSecond == 0) {
    return "-";
  }
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f MIPS", static_cast<double>(instructionsPerSecond) / 1e6);
  return buffer;
}

std::string backendsText(const std::vector<plugin::BackendInfo>& infos) {
  Table table({"NAME", "VERSION", "USABLE", "ACCELERATION", "RATE", "SUMMARY"});
  std::string details;
  for (const plugin::BackendInfo& info : infos) {
    const bool refused = info.error.has_value();
    table.add({config::printable(info.name, 32), refused ? "-" : config::printable(info.version, 32),
               info.usable ? "yes" : "no", refused ? "-" : accelerationName(info.acceleration),
               rateText(info.instructionsPerSecond),
               config::printable(refused ? info.error->message() : info.summary, 512)});
    std::string capabilities;
    for (const std::string& capability : info.capabilities) {
      capabilities += (capabilities.empty() ? "" : " ") + config::printable(capability, 64);
    }
    const std::string hint = refused ? info.error->hint() : info.usable ? std::string() : info.hint;
    details += capabilities.empty() ? "" : '\n' + config::printable(info.name, 32) + ": " + capabilities;
    details += hint.empty() ? "" : '\n' + config::printable(info.name, 32) + ": hint: " + config::printable(hint, 512);
  }
  return table.str() + (details.empty() ? "" : details + '\n');
}

std::string backendsJson(const std::vector<plugin::BackendInfo>& infos) {
  config::JsonWriter json;
  json.beginArray();
  for (const plugin::BackendInfo& info : infos) {
    json.beginObject()
        .member("name", info.name)
        .member("path", info.path)
        .member("version", info.version)
        .member("description", info.description)
        .member("usable", info.usable)
        .member("acceleration", accelerationName(info.acceleration))
        .member("summary", info.summary)
        .member("hint", info.hint)
        .member("instructionsPerSecond", info.instructionsPerSecond)
        .member("preference", info.preference);
    json.key("capabilities").beginArray();
    for (const std::string& capability : info.capabilities) {
      json.text(capability);
    }
    json.endArray();
    if (info.error) {
      json.key("error");
      writeErrorObject(json, *info.error);
    }
    json.endObject();
  }
  return json.endArray().str();
}

}  // namespace

int backends(bool json) {
  plugin::Registry registry(client::registryOptions(
      findInstallation(), client::processVariable("VMMHOST_PLUGIN_PATH").value_or(""), ::geteuid() == 0));
  const std::vector<plugin::BackendInfo> infos = registry.probe(true);
  print(json ? backendsJson(infos) + '\n' : backendsText(infos));
  return kExitOk;
}

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

}  // namespace vmmhost::cli
