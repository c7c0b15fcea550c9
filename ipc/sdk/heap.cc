#include "ipc/sdk/heap.h"

#include <malloc.h>

namespace vmmhost::worker {

void shareOneHeap() noexcept {
#ifdef __GLIBC__
  // Given a number, it counts no processors. What a sanitizer puts in its place refuses, and opens what it likes.
  ::mallopt(M_ARENA_MAX, 1);
#endif
}

}  // namespace vmmhost::worker
