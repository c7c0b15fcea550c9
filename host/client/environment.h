// What the environment of a command says about where things are.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "host/base/paths.h"
#include "host/plugin/registry.h"

namespace vmmhost::client {

// The value of a variable; nothing where it is not set.
using Variables = std::function<std::optional<std::string>(const char* name)>;
// Variables of this process; none of them in a set-user-id program.
std::optional<std::string> processVariable(const char* name);

// Where backends are looked for: `pluginPath` (VMMHOST_PLUGIN_PATH) first, then the user's folder
// ($XDG_DATA_HOME/vmmhost/plugins, else ~/.local/share/vmmhost/plugins), then the installation's. Probe results are
// kept in $XDG_CACHE_HOME/vmmhost, else /var/cache/vmmhost as root, else ~/.cache/vmmhost. Variables that hold relative
// paths are ignored, as the XDG base directory specification asks.
plugin::RegistryOptions registryOptions(const InstallPaths& installation, const std::string& pluginPath, bool root,
                                        const Variables& variable = processVariable);

// CLOCK_MONOTONIC.
std::uint64_t monotonicNs();

}  // namespace vmmhost::client
