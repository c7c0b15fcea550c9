// Runs probing programs side by side and collects their answers.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "host/plugin/probe_result.h"
#include "vmmhost/fd.h"

namespace vmmhost::plugin {

struct ProbeJob {
  std::string name;
  std::string path;  // for messages
  Fd plugin;         // the checked file
  bool measure = false;
};

// One result for each job, in their order; the error in it says what a plugin did instead of answering, and what it
// logged meanwhile is there in either case. Every program
// that was started, and what it started itself in its session, is gone when this returns; that takes `timeout` at most
// and a moment. Uses posix_spawn: may be called in a program with threads. Throws if memory or descriptors run out, and
// kCancelled when `cancel` (a descriptor; -1: none) becomes readable.
std::vector<ProbeResult> runProbes(const std::string& program, const std::vector<ProbeJob>& jobs,
                                   std::chrono::milliseconds timeout, int cancel = -1);

}  // namespace vmmhost::plugin
