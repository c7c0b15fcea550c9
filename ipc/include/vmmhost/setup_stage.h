// The end of a set-up: for processes that start with capabilities over namespaces of their own (spawn's
// Jail::setupCapabilities), which they need for a moment and must not have when they read their first input.
#pragma once

#include <linux/filter.h>

#include <span>

namespace vmmhost {

// Gives up every capability for good (ambient, permitted, effective, inheritable; the bounding set is empty), and then
// installs `filter`, which takes away the calls that the set-up took, for all threads. To be called by the only thread
// that there ever was in the process, since each thread has capabilities of its own: before it starts others, reads its
// socket or says hello. What it opened for the set-up it has closed by then: a descriptor beyond its plan is found by
// whoever looks at it. Throws Error (kConfinement) that names whatever is left, and a process to which that happens
// ends itself.
void endSetup(std::span<const sock_filter> filter);

}  // namespace vmmhost
