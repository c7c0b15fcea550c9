/* Built for a later minor version, whose description is longer. */
#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static const struct {
  vmmhost_plugin known;
  const char* added[4];
} longer = {
    {sizeof(longer), VMMHOST_PLUGIN_ABI + 9, "newerminor", "9.0", "From the future", 0, 0, probe, validate, plan},
    {"not", "known", "to this", "host"}};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &longer.known;
}
