// vmmhost backends: what VMs can be run with on this machine.
#include <unistd.h>

#include <string>
#include <vector>

#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/base/text.h"
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/plugin/places.h"
#include "host/plugin/registry.h"

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
    table.add({printable(info.name, 32), refused ? "-" : printable(info.version, 32), info.usable ? "yes" : "no",
               refused ? "-" : accelerationName(info.acceleration), rateText(info.instructionsPerSecond),
               printable(refused ? info.error->message() : info.summary, 512)});
    std::string capabilities;
    for (const std::string& capability : info.capabilities) {
      capabilities += (capabilities.empty() ? "" : " ") + printable(capability, 64);
    }
    const std::string hint = refused ? info.error->hint() : info.usable ? std::string() : info.hint;
    details += capabilities.empty() ? "" : '\n' + printable(info.name, 32) + ": " + capabilities;
    details += hint.empty() ? "" : '\n' + printable(info.name, 32) + ": hint: " + printable(hint, 512);
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

int backends(bool json) {
  plugin::Registry registry(plugin::registryOptions(
      findInstallation(), processVariable("VMMHOST_PLUGIN_PATH").value_or(""), ::geteuid() == 0));
  const std::vector<plugin::BackendInfo> infos = registry.probe(true);
  print(json ? backendsJson(infos) + '\n' : backendsText(infos));
  return kExitOk;
}

Usage usage() {
  return machineUsage(backends);
}

}  // namespace

const Verb kBackendsVerb = {"backends", "List backends: usable or why not, capabilities, speed", usage};

}  // namespace vmmhost::cli
