// Where plugin files are.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace vmmhost::plugin {

// Folders in the order of search, absolute, without empty ones.
std::vector<std::string> searchFolders(const std::string& pluginPath, const std::string& userDirectory,
                                       const std::string& prefixDirectory);

// The files of each name, in the order of the folders. The same file reached through two folders counts once. At most
// 64 names; nothing is opened.
std::map<std::string, std::vector<std::string>> findPluginFiles(const std::vector<std::string>& folders);

}  // namespace vmmhost::plugin
