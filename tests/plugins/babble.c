/* Writes to the descriptor that the answer goes to, without end, and more than once. */
#include <string.h>
#include <unistd.h>

#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static const vmmhost_plugin plugin = {sizeof(plugin), VMMHOST_PLUGIN_ABI, "babble", "1", "", 0, 0,
                                      probe,          validate,           plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  char bytes[4096];
  (void)host, (void)error;
  memset(bytes, 0xff, sizeof(bytes));
  while (write(3, bytes, sizeof(bytes)) > 0) {
  }
  return &plugin;
}
