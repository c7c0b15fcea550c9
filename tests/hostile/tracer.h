// Follows `vmmhost run` and everything that it starts with ptrace, up to the moment when the worker was executed and
// has not run an instruction. Takes root.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::hostile {

using Filters = std::vector<std::vector<sock_filter>>;  // the oldest first

// Of a stopped tracee; empty where there are none. Throws std::runtime_error where the kernel refuses.
Filters filtersOf(pid_t thread);

struct TraceOptions {
  std::string worker;           // file name of the worker's executable
  bool suspendSeccomp = false;  // from its exec on: the rest of the jail has to stand alone
  std::function<void(pid_t)> atExec;
  // The supervisor is killed before its first child enters its system call number `killAtCall`; 0: it is not.
  int killAtCall = 0;
};

// Runs a command (absolute path first, with this environment) under the tracer; its exit code, and what it printed in
// `output`. `wasSeen`: whether the worker was executed. `wasKilled`: whether the supervisor was before it; then `child`
// is its child, no longer traced.
struct Traced {
  int exitCode = -1;
  bool wasSeen = false;
  bool wasKilled = false;
  std::string output;
  Fd child;
};
Traced trace(const std::vector<std::string>& command, const std::vector<std::string>& environment,
             const std::string& folder, const TraceOptions& options);

// Stops each thread of a running process for a moment and reads its filters.
std::vector<Filters> filtersOfThreads(pid_t process);

}  // namespace vmmhost::hostile
