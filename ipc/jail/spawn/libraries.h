// What a dynamic executable is made of besides itself.
#pragma once

#include <string>
#include <vector>

namespace vmmhost::spawn {

struct Libraries {
  std::string loader;              // the path that the executable names (PT_INTERP); empty: it is static
  std::vector<std::string> files;  // the loader, its cache, and each library, by the paths that the loader will try
};

// Of an executable that is open for reading, as it would be loaded here with an empty environment: what it and its
// libraries need (DT_NEEDED), as far as it lies below /usr, /lib, /lib64, /opt and the like. What it loads later by
// name is not known. A library that is not found is left out; the loader will say so. Throws Error for a file that is
// no executable of this machine.
Libraries librariesOf(int executable);

// Of files that are to be in a root at their own paths, those that are not there by what is bound to `targets`, which
// are files or folders: each once.
std::vector<std::string> filesBesides(const std::vector<std::string>& targets, const std::vector<std::string>& files);

}  // namespace vmmhost::spawn
