// What the worker may still do, stage by stage. Installed on top of the base filter of the spawn stub: filters add up,
// and each only takes away.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "vmmhost/seccomp.h"

namespace vmmhost::kvm::confine {

// Making a VM: all requests that this needs, memory, threads, no file but those that were handed over.
seccomp::Policy creationPolicy();
// The thread of a virtual CPU: KVM_RUN on its descriptor, waiting, signals to the control thread (writes to
// `signalDescriptors`).
seccomp::Policy vcpuPolicy(int vcpuDescriptor, std::span<const int> signalDescriptors);
// The thread that loads: reading by position from `files`, giving memory back, a signal to the control thread.
seccomp::Policy loaderPolicy(std::span<const int> files, int signalDescriptor);
// The control thread once the VM is made: the event loop, its sockets and files, the state of parked virtual CPUs, and
// signals to threads of process `pid`, which is this one.
seccomp::Policy controlPolicy(pid_t pid);

// The same, installed for the process or the calling thread. Throw Error(kConfinement). Builds with sanitizers, whose
// run-time libraries need more, install none of them.
void enterCreation();                                                                             // all threads
std::vector<sock_filter> vcpuFilter(int vcpuDescriptor, std::span<const int> signalDescriptors);  // empty: install none
std::vector<sock_filter> loaderFilter(std::span<const int> files, int signalDescriptor);          // the same
void enterControl();                                                                              // the calling thread

}  // namespace vmmhost::kvm::confine
