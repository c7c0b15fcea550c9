/* The program that jailed processes of tests may start: waits for the end of descriptor 5, if that is open, and exits
 * with 42, or with 43 if it was given descriptors of programs. */
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

int main(void) {
  struct rlimit limit = {0, 0};
  char byte;
  while (read(5, &byte, 1) > 0) {
  }
  getrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 1; i <= 8; ++i) {
    if (fcntl((int)limit.rlim_cur + i, F_GETFD) >= 0) {
      return 43;
    }
  }
  return 42;
}
