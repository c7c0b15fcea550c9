// Looks at processes that a filter is about to end, by ptrace: at the call, its arguments, and who made it.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vmmhost/fd.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::jailed {

// A call that a filter ended a process for. Numbers of processes are those of the tracer's PID namespace.
struct TracedCall {
  pid_t process = 0;
  pid_t thread = 0;
  std::string name;                // of the thread, printable
  std::uint32_t architecture = 0;  // AUDIT_ARCH_*, linux/audit.h
  std::int64_t number = 0;
  std::array<std::uint64_t, 6> arguments{};
};

// Whether the policy that the process started with forbids the call. If not, a filter of its own making did.
bool isForbidden(const TracedCall& call, const seccomp::PolicyChoice& policy,
                 const seccomp::BaseParameters& parameters);
// "process 12 (vmmhost-worker-x), thread 14: system call 41 (socket) with 0x1, 0x1, 0x0, 0x0, 0x0, 0x0; no grant allows
// it", or which grants do.
std::string explain(const TracedCall& call, const seccomp::PolicyChoice& policy,
                    const seccomp::BaseParameters& parameters);

// Follows one process, its threads and all that comes of it, from the moment on when it is told to. Whoever is traced
// is as confined as otherwise: it is let go on at once, gets every signal, and dies with the tracer. Only a process
// whose end by SIGSYS is decided is looked at.
//
// The thread that has the process as its child goes on reaping it, and is to do so only when the pidfd says that it has
// ended: until then what it would be told of are stops, which are the tracer's (kernel/exit.c, wait_consider_task: the
// parent's and the tracer's thread are of one process).
class CallTracer {
 public:
  CallTracer();
  // Waits until the process has ended.
  ~CallTracer();
  CallTracer(const CallTracer&) = delete;
  CallTracer& operator=(const CallTracer&) = delete;

  // Once. `process` is a child that is not on its way yet. Throws Error (kUnavailable) with the reason if it cannot be
  // traced.
  void follow(pid_t process);

  // Readable once there is something to take.
  int descriptor() const { return news_.get(); }
  // What was seen since the last time: at most 64 calls, and those of the followed process itself. A call is there
  // before its process has ended.
  std::vector<TracedCall> take();

 private:
  class Tracees;

  void note(TracedCall call);

  Fd news_;  // an eventfd
  std::mutex mutex_;
  std::vector<TracedCall> calls_;
  pid_t followed_ = 0;  // set before the thread begins
  std::thread thread_;
};

}  // namespace vmmhost::jailed
