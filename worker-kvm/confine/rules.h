// What policies of the worker's threads are put together from.
#pragma once

#include <cstdint>
#include <vector>

#include "vmmhost/seccomp.h"

namespace vmmhost::kvm::confine {

using Rules = std::vector<seccomp::Rule>;

void append(Rules& rules, const Rules& more);

seccomp::Rule call(std::uint32_t number);
// An argument of 32 bits, as requests, commands, flags, descriptors and ids are: the kernel looks at no more.
seccomp::Rule callWith(std::uint32_t number, std::uint8_t argument, std::uint32_t value);
// An argument without any of `bits`.
seccomp::Rule callWithout(std::uint32_t number, std::uint8_t argument, std::uint64_t bits);
// ioctl(any descriptor, number).
seccomp::Rule request(unsigned long number);
// A call on this descriptor (its first argument).
seccomp::Rule callOn(std::uint32_t number, int descriptor);

// What any thread of a C program does: locks, signals, its end.
Rules everyThread();
// malloc and free, in the one heap that a worker has (ipc/sdk/heap.h): private memory of its own, nothing
// executable. Every thread's filter has them, so that no allocation anywhere can be a thread's end.
Rules heap();

}  // namespace vmmhost::kvm::confine
