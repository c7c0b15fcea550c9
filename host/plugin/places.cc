#include "host/plugin/places.h"

namespace vmmhost::plugin {

namespace {

std::string absolute(const Variables& variable, const char* name) {
  const auto value = variable(name);
  return value && !value->empty() && (*value)[0] == '/' ? *value : std::string();
}

// A folder of ours below that of an XDG variable, or below the home folder.
std::string xdgFolder(const Variables& variable, const char* name, const char* belowHome, const char* ours) {
  std::string base = absolute(variable, name);
  if (base.empty()) {
    base = absolute(variable, "HOME");
    if (base.empty()) {
      return {};
    }
    return below(base, belowHome) + ours;
  }
  return below(base, ours);
}

}  // namespace

RegistryOptions registryOptions(const InstallPaths& installation, const std::string& pluginPath, bool root,
                                const Variables& variable) {
  RegistryOptions options;
  options.pluginPath = pluginPath;
  options.userDirectory = xdgFolder(variable, "XDG_DATA_HOME", "/.local/share", "/vmmhost/plugins");
  options.prefixDirectory = installation.plugins;
  options.probeProgram = installation.pluginProbe;
  options.cacheDirectory = root && absolute(variable, "XDG_CACHE_HOME").empty()
                               ? "/var/cache/vmmhost"
                               : xdgFolder(variable, "XDG_CACHE_HOME", "/.cache", "/vmmhost");
  return options;
}

}  // namespace vmmhost::plugin
