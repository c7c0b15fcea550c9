// Where the parts of an installation (or of a build tree) are, relative to the running program.
#pragma once

#include <string>

namespace vmmhost {

struct InstallPaths {
  std::string supervisor;         // vmmhost-supervisor
  std::string pluginProbe;        // vmmhost-plugin-probe
  std::string plugins;            // folder of the backends that belong to this installation
  std::string conformance;        // vmmhost-conformance
  std::string conformanceGuests;  // folder of the bare-metal guests that it runs
};

// PREFIX/bin/vmmhost has PREFIX/libexec/vmmhost and PREFIX/lib/.../plugins beside it; in a build tree the same places
// are below build/<preset>/stage. Found through /proc/self/exe, or through `anchor`, the path of a file of the
// installation, when given. Throws Error(kNotFound).
InstallPaths findInstallation(const std::string& anchor = {});

}  // namespace vmmhost
