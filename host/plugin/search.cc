#include "host/plugin/search.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>
#include <tuple>

#include "host/plugin/host_api.h"
#include "vmmhost/error.h"

namespace vmmhost::plugin {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "vmmhost-backend-";
constexpr std::string_view kSuffix = ".so";
constexpr std::size_t kMaxNames = 64;
constexpr std::size_t kMaxEntries = 4096;  // looked at in one folder

std::string backendName(const std::string& file) {
  if (file.size() <= kPrefix.size() + kSuffix.size() || file.compare(0, kPrefix.size(), kPrefix) != 0 ||
      file.compare(file.size() - kSuffix.size(), kSuffix.size(), kSuffix) != 0) {
    return {};
  }
  std::string name = file.substr(kPrefix.size(), file.size() - kPrefix.size() - kSuffix.size());
  return isBackendName(name) ? name : std::string();
}

void add(std::vector<std::string>& folders, const std::string& folder) {
  std::error_code error;
  const fs::path absolute = fs::absolute(folder, error);
  if (!folder.empty() && !error) {
    folders.push_back(absolute.lexically_normal().string());
  }
}

}  // namespace

std::vector<std::string> searchFolders(const std::string& pluginPath, const std::string& userDirectory,
                                       const std::string& prefixDirectory) {
  std::vector<std::string> folders;
  for (std::size_t begin = 0; begin <= pluginPath.size();) {
    const std::size_t end = std::min(pluginPath.find(':', begin), pluginPath.size());
    add(folders, pluginPath.substr(begin, end - begin));
    begin = end + 1;
  }
  add(folders, userDirectory);
  add(folders, prefixDirectory);
  return folders;
}

std::map<std::string, std::vector<std::string>> findPluginFiles(const std::vector<std::string>& folders) {
  std::map<std::string, std::vector<std::string>> found;
  std::set<std::tuple<std::string, dev_t, ino_t>> seen;
  for (const std::string& folder : folders) {
    std::error_code error;
    std::size_t entries = 0;
    for (fs::directory_iterator iterator(folder, error), end; !error && iterator != end && entries < kMaxEntries;
         iterator.increment(error), ++entries) {
      const std::string file = iterator->path().string();
      const std::string name = backendName(iterator->path().filename().string());
      struct stat status = {};
      if (name.empty() || ::stat(file.c_str(), &status) != 0 ||
          !seen.emplace(name, status.st_dev, status.st_ino).second ||
          (found.size() >= kMaxNames && found.count(name) == 0)) {
        continue;
      }
      found[name].push_back(file);
    }
    // A folder that is not there is none to search; one that cannot be looked at now must not make plugins vanish.
    if (error == std::errc::too_many_files_open || error == std::errc::too_many_files_open_in_system ||
        error == std::errc::not_enough_memory) {
      throw systemError("looking for plugins in " + folder, error.value());
    }
  }
  return found;
}

}  // namespace vmmhost::plugin
