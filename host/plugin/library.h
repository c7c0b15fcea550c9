// A plugin's shared object in this process: loaded through the descriptor that was checked, its ABI negotiated.
#pragma once

#include <cstdint>
#include <string>

#include "host/plugin/host_api.h"
#include "host/plugin/probe_result.h"
#include "vmmhost/plugin.h"

namespace vmmhost::plugin {

// The text of a plugin and its table of functions, copied and checked. Stays valid for ever: nothing is ever unloaded.
struct Library {
  std::string name;
  std::string version;
  std::string description;
  const vmmhost_plugin* functions = nullptr;
};

// "1.2"
std::string abiText(std::uint32_t abi);

// Loads the file behind `descriptor`, which may be closed afterwards. `path` is for messages; `name` is what the file
// name says, and what the plugin has to call itself. Runs the constructors of the file. Throws kUnavailable for what
// is no plugin or does not fit this host's ABI, and what the plugin's entry reports.
Library loadLibrary(int descriptor, const std::string& path, const std::string& name, const LogSink& sink);

// Calls probe and copies the answer. Throws what the plugin reports.
ProbeResult callProbe(const Library& library, bool measure, const LogSink& sink);

}  // namespace vmmhost::plugin
