// The program's command line; `vmmhost conformance` has the same.
#pragma once

#include <string>
#include <vector>

namespace vmmhost::conformance {

struct Options {
  std::string plugin;   // a plugin's file, or
  std::string backend;  // the name of one that is installed
  std::vector<std::string> patterns;
  std::string kernel;
  std::string initrd;
  bool json = false;
  bool list = false;
  bool help = false;
  unsigned jobs = 2;
  // Between this program and the processes that it starts, one for each case.
  std::string childFolder;  // not empty: this is one of them, and this is its folder
  std::string refusalOf;    // a capability that is not advertised
  std::string capabilities;
};

// Throws Error(kInvalidArgument).
Options parseOptions(int argc, char** argv);
// What the process of one case is started with, besides the plugin's file.
std::vector<std::string> childArguments(const Options& options, const std::string& plugin, const std::string& name,
                                        const std::string& folder, const std::string& refusalOf,
                                        const std::vector<std::string>& capabilities);
std::vector<std::string> splitWords(const std::string& text, char separator);

extern const char kUsage[];

}  // namespace vmmhost::conformance
