/* vmmhost-backend-hostile.so: plans the launch of hostile-worker with the attack that the platform options "attack" and
 * "moment" name, in the jail that "jail" names: "static" (as worker-kvm's), "system" (as the QEMU backend's) or
 * "dynamic" (worker-dynamic). "forge" names a part of the plan to be something that no plugin may ask for. Plain C, and
 * no Cap'n Proto: a plugin as a third party may write it. Built for another worker as well, with HOSTILE_NAME and
 * HOSTILE_WORKER. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "vmmhost/plugin.h"

#ifndef HOSTILE_NAME
#define HOSTILE_NAME "hostile"
#define HOSTILE_WORKER "hostile-worker"
#endif

enum { kNameBytes = 64 };

struct launch {
  char attack[kNameBytes];
  char moment[kNameBytes];
  char token[kNameBytes];
  const char* arguments[3];
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

/* One part of a plan forged; -1 for an unknown name. */
static int forge(const char* what, vmmhost_launch_plan* plan) {
  static const vmmhost_bind run = {"/run", "/usr/run"};
  static const vmmhost_bind etc = {"/usr/../etc", "/etc"};
  static const vmmhost_bind over_proc = {"/usr/share", "/proc/sys"};
  static const vmmhost_device disk = {"disk", "/etc/shadow", 0, 0};
  static const vmmhost_device upwards = {"up", "/dev/../etc/shadow", 0, 0};
  static const vmmhost_rlimit descriptors = {RLIMIT_NOFILE, 0, 65536};
  static const vmmhost_rlimit locked = {RLIMIT_MEMLOCK, 0, 1 << 30};
  plan->root = VMMHOST_ROOT_SYSTEM;
  if (strcmp(what, "bind-run") == 0) {
    plan->binds = &run, plan->bind_count = 1;
  } else if (strcmp(what, "bind-upwards") == 0) {
    plan->binds = &etc, plan->bind_count = 1;
  } else if (strcmp(what, "bind-over-proc") == 0) {
    plan->binds = &over_proc, plan->bind_count = 1;
  } else if (strcmp(what, "device-elsewhere") == 0) {
    plan->devices = &disk, plan->device_count = 1;
  } else if (strcmp(what, "device-upwards") == 0) {
    plan->devices = &upwards, plan->device_count = 1;
  } else if (strcmp(what, "limit-descriptors") == 0) {
    plan->rlimits = &descriptors, plan->rlimit_count = 1;
  } else if (strcmp(what, "limit-locked-memory") == 0) {
    plan->rlimits = &locked, plan->rlimit_count = 1;
  } else if (strcmp(what, "policy-none") == 0) {
    plan->seccomp = "none";
  } else if (strcmp(what, "policy-path") == 0) {
    plan->seccomp = "../worker-system";
  } else if (strcmp(what, "policy-and-grants") == 0) {
    plan->seccomp = "worker-static", plan->root = VMMHOST_ROOT_EMPTY, plan->grants = VMMHOST_GRANT_KVM;
  } else if (strcmp(what, "grants-unknown") == 0) {
    plan->seccomp = NULL, plan->grants = UINT64_MAX;
  } else if (strcmp(what, "grants-that-open-nothing") == 0) {
    plan->seccomp = NULL, plan->ring_count = 0, plan->grants = VMMHOST_GRANT_KVM;
  } else if (strcmp(what, "grants-for-nothing") == 0) {
    plan->seccomp = NULL, plan->root = VMMHOST_ROOT_EMPTY, plan->ring_count = 0, plan->grants = VMMHOST_GRANT_PROGRAMS;
  } else if (strcmp(what, "static-among-programs") == 0) {
    plan->seccomp = "worker-static";
  } else if (strcmp(what, "root-host") == 0) {
    plan->root = 7;
  } else if (strcmp(what, "flags-unknown") == 0) {
    plan->flags = 1u << 31;
  } else if (strcmp(what, "worker-elsewhere") == 0) {
    plan->worker = "/etc/passwd";
  } else if (strcmp(what, "worker-upwards") == 0) {
    plan->worker = "/../../etc/../..";
  } else if (strcmp(what, "processes") == 0) {
    plan->max_processes = UINT32_MAX;
  } else if (strcmp(what, "memory") == 0) {
    plan->overhead_bytes = UINT64_MAX;
  } else if (strcmp(what, "rings") == 0) {
    plan->ring_count = 33;
  } else if (strcmp(what, "epolls") == 0) {
    plan->epoll_count = 129;
  } else if (strcmp(what, "descriptors") == 0) {
    plan->max_descriptors = 65536;
  } else if (strcmp(what, "rings-beside-programs") == 0) {
    plan->seccomp = "worker-system", plan->ring_count = 1;
  } else {
    return -1;
  }
  return 0;
}

static int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan,
                vmmhost_error* error) {
  const char* json = host->config_json(config);
  char jail[kNameBytes] = "static";
  char forged[kNameBytes] = "";
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
  (void)find_option(json, "jail", jail);
  (void)find_option(json, "token", launch->token);
  launch->arguments[0] = launch->attack;
  launch->arguments[1] = launch->moment;
  launch->arguments[2] = launch->token;
  plan->arguments = launch->arguments;
  plan->argument_count = 3;
  if (strcmp(jail, "system") == 0) {
    plan->worker = "hostile-worker-dynamic";
    plan->root = VMMHOST_ROOT_SYSTEM;
    plan->flags = VMMHOST_PLAN_PROC | VMMHOST_PLAN_DEV;
    plan->seccomp = "worker-system";
    plan->max_processes = 1 + 24;
    plan->overhead_bytes = (uint64_t)384 << 20;
    plan->create_timeout_ms = 20000;
  } else if (strcmp(jail, "dynamic") == 0) {
    plan->worker = "hostile-worker-dynamic";
    plan->root = VMMHOST_ROOT_SYSTEM;
    plan->flags = VMMHOST_PLAN_PROC;
    plan->seccomp = "worker-dynamic";
  } else {
    plan->worker = HOSTILE_WORKER;
#ifdef VMMHOST_SANITIZED /* its runtime is a shared library */
    plan->root = VMMHOST_ROOT_SYSTEM;
    plan->flags = VMMHOST_PLAN_PROC;
    plan->seccomp = "worker-dynamic";
    plan->overhead_bytes = (uint64_t)1 << 30;
#else
    plan->root = VMMHOST_ROOT_EMPTY;
    plan->ring_count = 1;
    if (strcmp(jail, "grants") == 0) { /* what worker-static has */
      plan->grants = VMMHOST_GRANT_KVM | VMMHOST_GRANT_TAP | VMMHOST_GRANT_RINGS | VMMHOST_GRANT_DISKS |
                     VMMHOST_GRANT_VSOCK_SOCKETS;
    } else {
      plan->seccomp = "worker-static";
    }
#endif
  }
  plan->epoll_count = 1; /* for the SDK's event loop */
  plan->plugin_private = launch;
  plan->release = release;
  if (find_option(json, "forge", forged) == 0 && forge(forged, plan) != 0) {
    host->error_set(error, VMMHOST_ERROR_INVALID_ARGUMENT, "platform.options: nothing to forge of this name", NULL, 0);
    return -1;
  }
  return 0;
}

static const vmmhost_plugin plugin = {
    sizeof(plugin), VMMHOST_PLUGIN_ABI, HOSTILE_NAME, "1", "Attacks its jail, for tests", 0, 0, probe, validate, plan};

const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  (void)host, (void)error;
  return &plugin;
}
