// Where a test program finds what else was built: by its own place, so that no path of this machine is compiled into
// it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

namespace vmmhost::tests {

// The absolute path of something below the build folder, such as "stage/bin/vmmhost". Test programs lie in bin/ there.
// VMMHOST_TEST_BUILD in the environment names another folder that holds the same.
inline std::string built(std::string_view path) {
  const char* folder = std::getenv("VMMHOST_TEST_BUILD");
  const std::filesystem::path build = folder != nullptr
                                          ? std::filesystem::path(folder)
                                          : std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  return (build / path).string();
}

}  // namespace vmmhost::tests
