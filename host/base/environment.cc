#include "host/base/environment.h"

#include <stdlib.h>

namespace vmmhost {

std::optional<std::string> processVariable(const char* name) {
  const char* value = ::secure_getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::string below(std::string folder, const char* path) {
  while (folder.ends_with('/')) {
    folder.pop_back();
  }
  return folder + path;
}

}  // namespace vmmhost
