// Copies a plugin's launch plan out of its memory, and refuses what the host would not carry out.
#pragma once

#include <cstdint>
#include <string>

#include "host/plugin/registry.h"
#include "vmmhost/plugin.h"

namespace vmmhost::plugin {

// `folder` is the plugin file's folder, absolute and without links; `abi` is what the plugin was built against, which
// decides about the policy of its worker, since the filter stands before a word is said. Opens the worker. Throws Error
// (kInternal for a plan that breaks the rules of plugin.h, kConfinement or kNotFound for the worker's file), without
// the backend's name.
LaunchPlan copyLaunchPlan(const vmmhost_launch_plan& plan, const std::string& folder,
                          std::uint32_t abi = VMMHOST_PLUGIN_ABI);

}  // namespace vmmhost::plugin
