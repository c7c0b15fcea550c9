/* Its entry refuses, with a hint. */
#include "vmmhost/plugin.h"

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  host->error_set(error, VMMHOST_ERROR_UNAVAILABLE, "the moon is not full", "wait two weeks", 1);
  return NULL;
}
