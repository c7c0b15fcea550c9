/* Does everything right. Each probe adds a byte to the file that VMMHOST_TEST_COUNTER names, so that a test sees
 * whether it was probed at all. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmmhost/plugin.h"

/* Writes the numbers of the open descriptors to the file that VMMHOST_TEST_DESCRIPTORS names. */
static void list_descriptors(void) {
  const char* path = getenv("VMMHOST_TEST_DESCRIPTORS");
  int open[1024];
  int descriptor;
  FILE* file;
  for (descriptor = 0; descriptor < 1024; descriptor++) {
    open[descriptor] = fcntl(descriptor, F_GETFD) >= 0;
  }
  file = path == NULL ? NULL : fopen(path, "w");
  if (file != NULL) {
    for (descriptor = 0; descriptor < 1024; descriptor++) {
      if (open[descriptor]) {
        fprintf(file, "%d ", descriptor);
      }
    }
    fclose(file);
  }
}

static int probe(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
                 vmmhost_error* error) {
  static const char* const capabilities[] = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
  static const char* watched[1];
  const char* counter = getenv("VMMHOST_TEST_COUNTER");
  FILE* file = counter == NULL ? NULL : fopen(counter, "a");
  (void)error;
  list_descriptors();
  if (file != NULL) {
    fputc('x', file);
    fclose(file);
  }
  host->log(VMMHOST_LOG_INFO, "probing");
  result->usable = getenv("VMMHOST_TEST_UNUSABLE") == NULL;
  result->acceleration = VMMHOST_ACCELERATION_EMULATED;
  result->capability_count = 2;
  result->capabilities = capabilities;
  result->summary = "a backend for tests\x1b[31m";
  result->hint = "nothing to do";
  result->instructions_per_second = request->measure ? 1300000 : 0;
  watched[0] = getenv("VMMHOST_TEST_WATCHED");
  if (watched[0] != NULL && VMMHOST_HAS_FIELD(result, vmmhost_probe_result, watched_path_count)) {
    result->watched_paths = watched;
    result->watched_path_count = 1;
  }
  return 0;
}

static int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  const char* json = host->config_json(config);
  if (json == NULL || config->capnp_words == NULL || config->capnp_word_count == 0) {
    host->error_set(error, VMMHOST_ERROR_INTERNAL, "there is no configuration", NULL, 0);
    return -1;
  }
  if (strstr(json, "\"refused\"") != NULL) {
    host->log(VMMHOST_LOG_WARNING, "refusing\na name");
    host->error_field(error, "too early");
    host->error_set(error, VMMHOST_ERROR_UNSUPPORTED, "name: \x1b[2Jrefused", "take another", 1);
    host->error_field(error, getenv("VMMHOST_TEST_FIELD") != NULL ? getenv("VMMHOST_TEST_FIELD") : "name");
    return -1;
  }
  return 0;
}

static int released;

static void release(vmmhost_launch_plan* plan) {
  released++;
  free(plan->plugin_private);
}

static int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* launch,
                vmmhost_error* error) {
  static const vmmhost_device devices[] = {{"kvm", "/dev/kvm", 1, 0}};
  static const vmmhost_rlimit rlimits[] = {{3, 0, 64}};
  static const vmmhost_bind binds[] = {{"/usr/share/x", "/usr/share/x"}};
  const char** arguments = malloc(2 * sizeof(*arguments));
  (void)host, (void)config, (void)error;
  arguments[0] = "--released";
  arguments[1] = released == 0 ? "0" : "1";
  launch->worker = "../libexec/worker";
  launch->arguments = arguments;
  launch->argument_count = 2;
  launch->root = VMMHOST_ROOT_SYSTEM;
  launch->flags = VMMHOST_PLAN_PROC | VMMHOST_PLAN_TMP;
  launch->seccomp = "worker-system";
  launch->binds = binds;
  launch->bind_count = 1;
  launch->devices = devices;
  launch->device_count = 1;
  launch->rlimits = rlimits;
  launch->rlimit_count = 1;
  launch->max_processes = 12;
  launch->overhead_bytes = 1 << 20;
  launch->hello_timeout_ms = 1234;
  launch->plugin_private = (void*)arguments;
  launch->release = release;
  return 0;
}

static const vmmhost_plugin plugin = {sizeof(plugin), VMMHOST_PLUGIN_ABI, "good", "1.2.3", "A backend for tests", 7, 0,
                                      probe,          validate,           plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  if (host->size < sizeof(vmmhost_host_api) || host->abi != VMMHOST_PLUGIN_ABI) {
    host->error_set(error, VMMHOST_ERROR_UNAVAILABLE, "another host was expected", host->build, 0);
    return NULL;
  }
  return &plugin;
}
