/* Its probe never comes back. */
#include <unistd.h>

#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static int never(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                 vmmhost_error* error) {
  for (;;) {
    pause();
  }
  return probe(host, request, result, error);
}

static const vmmhost_plugin plugin = {sizeof(plugin), VMMHOST_PLUGIN_ABI, "hangprobe", "1", "", 0, 0,
                                      never,          validate,           plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
