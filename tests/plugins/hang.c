/* Never comes back from being loaded, and leaves a process that holds what it inherited. */
#include <unistd.h>

__attribute__((constructor)) static void hang(void) {
  (void)fork();
  for (;;) {
    pause();
  }
}
