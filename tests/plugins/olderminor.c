/* Built for the first version of the interface: it knows none of the fields that came later, but for those that
 * VMMHOST_TEST_CONFIG_FIELDS names, separated by commas. */
#include <stdlib.h>
#include <string.h>

#include "test_plugin.h"

TEST_PLUGIN_FUNCTIONS

static int probe_with_fields(const vmmhost_host_api* host, const vmmhost_probe_request* request,
                             vmmhost_probe_result* result, vmmhost_error* error) {
  static char text[32768];
  static const char* fields[1024];
  const char* given = getenv("VMMHOST_TEST_CONFIG_FIELDS");
  char* field;
  if (given == NULL || strlen(given) >= sizeof(text) || !VMMHOST_HAS_FIELD(result, vmmhost_probe_result, reserved2)) {
    return probe(host, request, result, error);
  }
  strcpy(text, given);
  result->config_fields = fields;
  for (field = strtok(text, ","); field != NULL; field = strtok(NULL, ",")) {
    fields[result->config_field_count++] = field;
  }
  return probe(host, request, result, error);
}

static const vmmhost_plugin plugin = {
    sizeof(plugin), VMMHOST_PLUGIN_ABI_MAJOR << 16, "olderminor", "1", "", 0, 0, probe_with_fields, validate, plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
