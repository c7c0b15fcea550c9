// Lets C++ exceptions out of its C functions.
#include <stdexcept>

#include "vmmhost/plugin.h"

namespace {

int probe(const vmmhost_host_api*, const vmmhost_probe_request*, vmmhost_probe_result*, vmmhost_error*) {
  throw std::runtime_error("from probe");
}
int validate(const vmmhost_host_api*, const vmmhost_config*, vmmhost_error*) {
  throw 42;
}
int plan(const vmmhost_host_api*, const vmmhost_config*, vmmhost_launch_plan*, vmmhost_error*) {
  return -1;  // without a word
}

const vmmhost_plugin kPlugin = {sizeof(kPlugin), VMMHOST_PLUGIN_ABI, "throws", "1", "", 0, 0, probe, validate, plan};

}  // namespace

extern "C" const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api*, vmmhost_error*) {
  return &kPlugin;
}
