#include "host/client/environment.h"

#include <stdlib.h>
#include <time.h>

namespace vmmhost::client {

namespace {

std::string absolute(const Variables& variable, const char* name) {
  const auto value = variable(name);
  return value && !value->empty() && (*value)[0] == '/' ? *value : std::string();
}

// "/" is a folder like any other.
std::string below(std::string folder, const char* path) {
  while (folder.ends_with('/')) {
    folder.pop_back();
  }
  return folder + path;
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

std::optional<std::string> processVariable(const char* name) {
  const char* value = ::secure_getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

plugin::RegistryOptions registryOptions(const InstallPaths& installation, const std::string& pluginPath, bool root,
                                        const Variables& variable) {
  plugin::RegistryOptions options;
  options.pluginPath = pluginPath;
  options.userDirectory = xdgFolder(variable, "XDG_DATA_HOME", "/.local/share", "/vmmhost/plugins");
  options.prefixDirectory = installation.plugins;
  options.probeProgram = installation.pluginProbe;
  options.cacheDirectory = root && absolute(variable, "XDG_CACHE_HOME").empty()
                               ? "/var/cache/vmmhost"
                               : xdgFolder(variable, "XDG_CACHE_HOME", "/.cache", "/vmmhost");
  return options;
}

std::uint64_t monotonicNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace vmmhost::client
