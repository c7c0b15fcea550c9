// Which backend `auto` takes, as a function of what is known of all.
#pragma once

#include <vector>

#include "host/plugin/registry.h"

namespace vmmhost::plugin {

// See Registry::choose.
Registry::Choice chooseBackend(const std::vector<BackendInfo>& backends);

}  // namespace vmmhost::plugin
