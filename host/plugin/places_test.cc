#include "host/plugin/places.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace vmmhost::plugin {
namespace {

Variables variables(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> std::optional<std::string> {
    const auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
}

const InstallPaths kInstallation{.supervisor = "/p/supervisor", .pluginProbe = "/p/probe", .plugins = "/p/plugins"};

TEST(RegistryOptions, homeFolder_isTheDefault) {
  const auto options = registryOptions(kInstallation, "/a:/b", false, variables({{"HOME", "/u"}}));
  EXPECT_EQ(options.pluginPath, "/a:/b");
  EXPECT_EQ(options.userDirectory, "/u/.local/share/vmmhost/plugins");
  EXPECT_EQ(options.prefixDirectory, "/p/plugins");
  EXPECT_EQ(options.probeProgram, "/p/probe");
  EXPECT_EQ(options.cacheDirectory, "/u/.cache/vmmhost");
}

TEST(RegistryOptions, rootFolderAsHome_isAFolderLikeAny) {
  const auto options = registryOptions(kInstallation, "", false, variables({{"HOME", "/"}, {"XDG_CACHE_HOME", "/c/"}}));
  EXPECT_EQ(options.userDirectory, "/.local/share/vmmhost/plugins");
  EXPECT_EQ(options.cacheDirectory, "/c/vmmhost");
}

TEST(RegistryOptions, xdgVariables_comeFirst) {
  const auto options =
      registryOptions(kInstallation, "", true,
                      variables({{"HOME", "/root"}, {"XDG_DATA_HOME", "/data"}, {"XDG_CACHE_HOME", "/cache"}}));
  EXPECT_EQ(options.userDirectory, "/data/vmmhost/plugins");
  EXPECT_EQ(options.cacheDirectory, "/cache/vmmhost");
}

TEST(RegistryOptions, root_cachesInVar) {
  const auto options = registryOptions(kInstallation, "", true, variables({{"HOME", "/root"}}));
  EXPECT_EQ(options.cacheDirectory, "/var/cache/vmmhost");
}

TEST(RegistryOptions, relativeOrMissingFolders_areIgnored) {
  const auto options = registryOptions(
      kInstallation, "", false, variables({{"HOME", "home"}, {"XDG_DATA_HOME", "../x"}, {"XDG_CACHE_HOME", ""}}));
  EXPECT_EQ(options.userDirectory, "");
  EXPECT_EQ(options.cacheDirectory, "");
}

}  // namespace
}  // namespace vmmhost::plugin
