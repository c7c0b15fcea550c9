/* Its probe ends the process. */
#include <stdio.h>
#include <stdlib.h>

#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static int crash(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                 vmmhost_error* error) {
  if (probe(host, request, result, error) == 0) {
    host->log(VMMHOST_LOG_INFO, "nobody need know");
    host->log(VMMHOST_LOG_ERROR, "about to crash");
    fputs("\x1b[2Jand so it does\n", stderr);
    abort();
  }
  return -1;
}

static const vmmhost_plugin plugin = {sizeof(plugin), VMMHOST_PLUGIN_ABI, "crashprobe", "1", "", 0, 0,
                                      crash,          validate,           plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
