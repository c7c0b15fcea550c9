/* Built for another major version: what follows its size and ABI must not be looked at. */
#include "vmmhost/plugin.h"

static const struct {
  uint32_t size;
  uint32_t abi;
  const char* garbage[8];
} other = {sizeof(other), (VMMHOST_PLUGIN_ABI_MAJOR + 1) << 16 | 3, {(const char*)1, (const char*)1}};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return (const vmmhost_plugin*)&other;
}
