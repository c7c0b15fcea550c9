/* The plugin of docs/plugins.md, as it was. */
#include <vmmhost/plugin.h>

#include <string.h>

static int probe(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                 vmmhost_error* error) {
  result->usable = 1;
  result->acceleration = VMMHOST_ACCELERATION_NONE;
  result->summary = "greets, and runs nothing";
  return 0;
}

static int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  const char* json = host->config_json(config);
  if (json != NULL && strstr(json, "\"disks\"") != NULL) {
    host->error_set(error, VMMHOST_ERROR_UNSUPPORTED, "disks: not served", "leave --disk out", 0);
    return -1;
  }
  return 0;
}

static int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan,
                vmmhost_error* error) {
  plan->worker = "vmmhost-worker-consumer"; /* relative to the folder of the plugin */
  plan->root = VMMHOST_ROOT_SYSTEM;         /* a dynamic executable needs its libraries */
  plan->seccomp = "worker-dynamic";
  return 0;
}

static const vmmhost_plugin hello = {
    .size = sizeof(hello), .abi = VMMHOST_PLUGIN_ABI, .name = "consumer", .version = "1.0",
    .description = "An example", .probe = probe, .validate = validate, .plan = plan,
};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) { return &hello; }
