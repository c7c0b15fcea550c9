/* Its file is called otherwise. */
#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static const vmmhost_plugin plugin = {sizeof(plugin), VMMHOST_PLUGIN_ABI, "other", "1", "", 0, 0,
                                      probe,          validate,           plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
