// The allocator of a worker, made fit for threads whose filters name few calls. Internal.
#pragma once

namespace vmmhost::worker {

// glibc gives threads heaps of their own, and opens files for that: /sys/devices/system/cpu/online to count processors
// when there are many, /proc/sys/vm/overcommit_memory when one of them shrinks. Under a filter that opens nothing the
// first free() of a thread was the end of the worker. From here on there is one heap, which needs neither. Before the
// first thread is started.
void shareOneHeap() noexcept;

}  // namespace vmmhost::worker
