/* The interface as a C99 program sees it, first and alone. */
#include <vmmhost/plugin.h>

int vmmhost_test_c_interface(const vmmhost_plugin* plugin);
int vmmhost_test_c_interface(const vmmhost_plugin* plugin) {
  return VMMHOST_HAS_FIELD(plugin, vmmhost_plugin, plan) && plugin->abi == VMMHOST_PLUGIN_ABI;
}
