/* A backend of 1.1 in plain C, without Cap'n Proto: reads its configuration as JSON, uses all that the host offers, and
 * says something in each field of the structs that it fills. Its worker greets and powers off. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "vmmhost/plugin.h"

static const char* const capabilities[] = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL, "plain"};
static const char* const watched[] = {"/etc/hostname", "/nowhere/at-all"};
static const char* const arguments[] = {"greet"};
static const vmmhost_device devices[] = {{"null", "/dev/null", 0, 0}, {"absent", "/dev/vmmhost-absent", 1, 0}};
static const vmmhost_rlimit rlimits[] = {{RLIMIT_STACK, 0, 4 << 20}};

static int probe(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                 vmmhost_error* error) {
  (void)error;
  if (!VMMHOST_HAS_FIELD(host, vmmhost_host_api, config_json) || host->abi >> 16 != VMMHOST_PLUGIN_ABI_MAJOR ||
      !VMMHOST_HAS_FIELD(request, vmmhost_probe_request, measure) ||
      !VMMHOST_HAS_FIELD(result, vmmhost_probe_result, watched_path_count)) {
    return -1;
  }
  result->usable = 1;
  result->acceleration = VMMHOST_ACCELERATION_EMULATED;
  result->capability_count = sizeof(capabilities) / sizeof(capabilities[0]);
  result->capabilities = capabilities;
  result->summary = "greets, and runs nothing";
  result->hint = "";
  result->instructions_per_second = request->measure != 0 ? 1100000 : 0;
  result->watched_paths = watched;
  result->watched_path_count = sizeof(watched) / sizeof(watched[0]);
  return 0;
}

static int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  const char* json = host->config_json(config);
  if (json == NULL || !VMMHOST_HAS_FIELD(config, vmmhost_config, capnp_word_count) || config->capnp_words == NULL ||
      config->capnp_word_count == 0) {
    host->error_set(error, VMMHOST_ERROR_INTERNAL, "no configuration", "", 1);
    return -1;
  }
  if (strstr(json, "\"disks\"") != NULL) {
    host->error_set(error, VMMHOST_ERROR_UNSUPPORTED, "disks: not served", "leave --disk out", 0);
    return -1;
  }
  host->log(VMMHOST_LOG_WARNING, "the plain backend serves little");
  return 0;
}

static void release(vmmhost_launch_plan* plan) {
  free(plan->plugin_private);
}

static int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan,
                vmmhost_error* error) {
  (void)config;
  if (!VMMHOST_HAS_FIELD(plan, vmmhost_launch_plan, ring_count)) {
    host->error_set(error, VMMHOST_ERROR_INTERNAL, "the host's launch plan is too short", "", 0);
    return -1;
  }
  plan->root = VMMHOST_ROOT_EMPTY;
  plan->worker = "vmmhost-worker-plain";
  plan->arguments = arguments;
  plan->argument_count = 1;
  plan->flags = VMMHOST_PLAN_PROC;
  plan->seccomp = "worker-static";
  plan->devices = devices;
  plan->device_count = 2;
  plan->rlimits = rlimits;
  plan->rlimit_count = 1;
  plan->max_processes = 4;
  plan->overhead_bytes = 32 << 20;
  plan->hello_timeout_ms = 20000;
  plan->create_timeout_ms = 20000;
  plan->plugin_private = malloc(16);
  plan->release = release;
  plan->ring_count = 2;
  return 0;
}

static const vmmhost_plugin plain = {
    .size = sizeof(plain),
    .abi = VMMHOST_PLUGIN_ABI,
    .name = "plain",
    .version = "1.1",
    .description = "As a third party wrote it",
    .preference = 7,
    .probe = probe,
    .validate = validate,
    .plan = plan,
};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host;
  (void)error;
  return &plain;
}
