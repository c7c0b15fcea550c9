#include "host/base/paths.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <filesystem>

#include "vmmhost/error.h"

namespace vmmhost {

namespace fs = std::filesystem;

InstallPaths findInstallation(const std::string& anchor) {
  fs::path program = anchor;
  if (program.empty()) {
    std::error_code error;
    program = fs::read_symlink("/proc/self/exe", error);
    if (error) {
      throw systemError("reading /proc/self/exe", error.value());
    }
  }
  // bin/vmmhost is one level below the prefix, libexec/vmmhost/vmmhost-supervisor two, and a build tree's bin is one
  // below build/<preset>, whose stage folder is a complete prefix.
  std::error_code ignored;
  fs::path folder = program.parent_path();
  for (int level = 0; level < 4; ++level, folder = folder.parent_path()) {
    for (const fs::path& prefix : {folder, folder / "stage"}) {
      const fs::path supervisor = prefix / VMMHOST_RELATIVE_LIBEXEC / "vmmhost-supervisor";
      if (fs::exists(supervisor, ignored)) {
        const fs::path programs = prefix / VMMHOST_RELATIVE_LIBEXEC;
        return {supervisor.string(), (programs / "vmmhost-plugin-probe").string(),
                (prefix / VMMHOST_RELATIVE_PLUGINS).string(), (programs / "vmmhost-conformance").string(),
                (prefix / VMMHOST_RELATIVE_DATA / "conformance").string()};
      }
    }
  }
  throw Error(ErrorCode::kNotFound, "no installation of vmmhost around " + program.string(),
              "run vmmhost from an installed prefix or from a build tree (build/<preset>/stage/bin/vmmhost)");
}

}  // namespace vmmhost
