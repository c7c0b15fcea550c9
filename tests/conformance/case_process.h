// Runs each case in a process of its own: what a plugin breaks there, or a case that hangs, costs that case only.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "tests/conformance/result.h"

namespace vmmhost::conformance {

struct Job {
  Result result;  // with its name and needs; kind kAbsent: not to be run
  std::vector<std::string> arguments;
  std::string folder;  // made and removed here
};

struct RunLimits {
  unsigned jobs = 2;
  std::chrono::milliseconds caseDeadline{900000};  // ten times what the longest takes where KVM is nested
};

// Runs `jobs`, at most limits.jobs at a time. `done` is called in the order of the jobs, on this thread. Returns the
// signal that ended it early (SIGINT, SIGTERM), or 0. Whatever happens, no process is left.
int runJobs(const std::string& program, std::vector<Job>& jobs, const RunLimits& limits,
            const std::function<void(const Result&)>& done);

}  // namespace vmmhost::conformance
