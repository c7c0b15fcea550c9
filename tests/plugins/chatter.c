/* Logs more than anybody keeps while it is probed, and answers then. */
#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static int chat(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                vmmhost_error* error) {
  int line;
  for (line = 0; line < 20000; line++) {
    host->log(VMMHOST_LOG_WARNING, "there is always something to say, and it is never of any use");
  }
  return probe(host, request, result, error);
}

static const vmmhost_plugin plugin = {sizeof(plugin), VMMHOST_PLUGIN_ABI, "chatter", "1", "", 0, 0,
                                      chat,           validate,           plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
