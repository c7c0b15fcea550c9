/* vmmhost-backend-hostile.so: plans the launch of hostile-worker with the attack that the platform options "attack" and
 * "moment" name. Plain C, and no Cap'n Proto: a plugin as a third party may write it. Built for another worker as well,
 * with HOSTILE_NAME and HOSTILE_WORKER. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmmhost/plugin.h"

#ifndef HOSTILE_NAME
#define HOSTILE_NAME "hostile"
#define HOSTILE_WORKER "hostile-worker"
#endif

enum { kNameBytes = 64 };

struct launch {
  char attack[kNameBytes];
  char moment[kNameBytes];
  const char* arguments[2];
};

/* The value of a platform option, from the configuration as JSON: {"name":"attack","value":"fork"}. */
static int find_option(const char* json, const char* name, char* value) {
  char quoted[kNameBytes];
  const char* at;
  const char* end;
  snprintf(quoted, sizeof quoted, "\"%s\"", name);
  at = strstr(json, quoted);
  at = at == NULL ? NULL : strstr(at + strlen(quoted), "\"value\"");
  at = at == NULL ? NULL : strchr(at + strlen("\"value\""), '"');
  end = at == NULL ? NULL : strchr(at + 1, '"');
  if (end == NULL || end - at - 1 >= kNameBytes) {
    return -1;
  }
  memcpy(value, at + 1, (size_t)(end - at - 1));
  value[end - at - 1] = '\0';
  return 0;
}

static int probe(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                 vmmhost_error* error) {
  static const char* const capabilities[] = {VMMHOST_CAP_DISK};
  (void)host, (void)request, (void)error;
  result->usable = 1;
  result->acceleration = VMMHOST_ACCELERATION_EMULATED;
  result->capabilities = capabilities;
  result->capability_count = 1;
  result->summary = "attacks its jail, for tests";
  return 0;
}

static int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  (void)host, (void)config, (void)error;
  return 0;
}

static void release(vmmhost_launch_plan* plan) {
  free(plan->plugin_private);
}

static int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan,
                vmmhost_error* error) {
  const char* json = host->config_json(config);
  struct launch* launch = calloc(1, sizeof *launch);
  if (json == NULL || launch == NULL) {
    free(launch);
    host->error_set(error, VMMHOST_ERROR_RESOURCE_EXHAUSTED, "out of memory", NULL, 1);
    return -1;
  }
  if (find_option(json, "attack", launch->attack) != 0 || find_option(json, "moment", launch->moment) != 0) {
    free(launch);
    host->error_set(error, VMMHOST_ERROR_INVALID_ARGUMENT, "platform.options: attack and moment are missing", NULL, 0);
    return -1;
  }
  launch->arguments[0] = launch->attack;
  launch->arguments[1] = launch->moment;
  plan->worker = HOSTILE_WORKER;
  plan->arguments = launch->arguments;
  plan->argument_count = 2;
  plan->root = VMMHOST_ROOT_EMPTY;
  plan->seccomp = "worker-static";
  plan->plugin_private = launch;
  plan->release = release;
  return 0;
}

static const vmmhost_plugin plugin = {
    sizeof(plugin), VMMHOST_PLUGIN_ABI, HOSTILE_NAME, "1", "Attacks its jail, for tests", 0, 0, probe, validate, plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
