/* What most of the plugins for tests have in common. */
#ifndef VMMHOST_TESTS_PLUGINS_TEST_PLUGIN_H
#define VMMHOST_TESTS_PLUGINS_TEST_PLUGIN_H

#include "vmmhost/plugin.h"

/* Functions that succeed and do nothing; static, so that each plugin has its own. */
#define TEST_PLUGIN_FUNCTIONS                                                                                        \
  static int probe(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result, \
                   vmmhost_error* error) {                                                                           \
    (void)host, (void)request, (void)error;                                                                          \
    result->usable = 1;                                                                                              \
    result->summary = "a test";                                                                                      \
    return 0;                                                                                                        \
  }                                                                                                                  \
  static int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {            \
    (void)host, (void)config, (void)error;                                                                           \
    return 0;                                                                                                        \
  }                                                                                                                  \
  static int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* launch,           \
                  vmmhost_error* error) {                                                                            \
    (void)host, (void)config, (void)error;                                                                           \
    launch->worker = "worker";                                                                                       \
    return 0;                                                                                                        \
  }

#endif
