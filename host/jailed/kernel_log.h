// What the kernel's log says of a process that a filter ended.
#pragma once

#include <kj/async.h>
#include <kj/timer.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "vmmhost/fd.h"

namespace vmmhost::jailed {

struct ForbiddenCall {
  std::uint32_t architecture = 0;  // AUDIT_ARCH_*, linux/audit.h
  std::int64_t number = 0;
};

// The call that process `pid` (its number in the first PID namespace) was ended for by a filter, if this record of
// /dev/kmsg says so (kernel/auditsc.c, audit_seccomp). Only the kernel's own records count.
std::optional<ForbiddenCall> parseForbiddenCall(std::string_view record, pid_t pid);

std::string describe(const ForbiddenCall& call);  // "system call 41 (socket)"

// The kernel's records from its construction on. Not everybody may read them, and not every kernel writes such ones,
// nor each of many: then nothing is found. One thread.
class KernelLog {
 public:
  static KernelLog open();
  // `records` as /dev/kmsg: each read, which must not block, is one record.
  explicit KernelLog(Fd records) : records_(std::move(records)) {}

  // Reads for a millisecond or so in one turn of the loop. What the kernel has not written yet is waited for as long as
  // `patience`. Once; `timer` and this outlive it.
  kj::Promise<std::optional<ForbiddenCall>> find(kj::Timer& timer, pid_t pid, kj::Duration patience);

 private:
  kj::Promise<std::optional<ForbiddenCall>> look(kj::Timer& timer, pid_t pid, kj::TimePoint end, kj::Duration pause);

  Fd records_;  // none: cannot be read
  unsigned left_ = 16384;
};

}  // namespace vmmhost::jailed
