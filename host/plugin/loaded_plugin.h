// A plugin that is loaded into this process, as the rest of the host uses it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "host/plugin/library.h"
#include "host/plugin/registry.h"
#include "host/plugin/trusted_file.h"

namespace vmmhost::plugin {

// Loads `file`; throws as loadLibrary does. `configFields` are those that its probe named.
std::shared_ptr<Plugin> loadPlugin(const TrustedFile& file, const std::string& name,
                                   std::vector<std::string> configFields, const LogSink& sink);

}  // namespace vmmhost::plugin
