// Where plugins are looked for, and what is known of them is kept.
#pragma once

#include <string>

#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/plugin/registry.h"

namespace vmmhost::plugin {

// Where backends are looked for: `pluginPath` (VMMHOST_PLUGIN_PATH) first, then the user's folder
// ($XDG_DATA_HOME/vmmhost/plugins, else ~/.local/share/vmmhost/plugins), then the installation's. Probe results are
// kept in $XDG_CACHE_HOME/vmmhost, else /var/cache/vmmhost as root, else ~/.cache/vmmhost. Variables that hold relative
// paths are ignored, as the XDG base directory specification asks.
RegistryOptions registryOptions(const InstallPaths& installation, const std::string& pluginPath, bool root,
                                const Variables& variable = processVariable);

}  // namespace vmmhost::plugin
