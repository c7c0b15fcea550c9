// Starts the supervisor process of one VM.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::client {

// Numbers of the descriptors that a supervisor starts with, besides /dev/null as 0, 1 and 2.
inline constexpr int kSupervisorControlFd = 3;  // the starter's control connection, and its lifeline
inline constexpr int kSupervisorRequestFd = 4;  // a sealed memfd: a LaunchRequest as capnp::messageToFlatArray made it

struct LaunchedSupervisor {
  Fd control;  // our end of the control connection, non-blocking
  Fd process;  // pidfd; the child is reaped by reapSupervisor, or by init after this process
  pid_t pid = 0;
};

// Executes `program` in a session of its own with default signals, the descriptors above and nothing else of this
// process but a few environment variables. With VMMHOST_DEBUG set its standard error is ours. Safe with several
// threads and cheap for a large process (no copy of the address space). Throws Error naming the program when it cannot
// be executed.
LaunchedSupervisor launchSupervisor(const std::string& program, schema::LaunchRequest::Reader request);

// Ends a supervisor that hangs.
void killSupervisor(const LaunchedSupervisor& supervisor) noexcept;

// How the supervisor process ended, for a message: "exited with code 1", "was ended by signal 9 (Killed)". Waits at
// most `limitMs` for its end; empty if it still runs then.
std::string reapSupervisor(LaunchedSupervisor& supervisor, int limitMs);

// The variables of `environment` ("NAME=value") that a supervisor gets.
std::vector<std::string> supervisorEnvironment(const char* const* environment);

// A sealed memfd with the request in it; its offset is 0.
Fd sealedRequest(schema::LaunchRequest::Reader request);

}  // namespace vmmhost::client
