/* The program that spawn_test starts in a jail: reads one-byte orders from descriptor 3 and carries them out.
 *   e: exit with code 7          o: open("/")              s: socket()            f: fork()
 *   u: answers its user id as 4 bytes                      n: answers the number of its open descriptors as 4 bytes */
#include <fcntl.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
  char order;
  while (read(3, &order, 1) == 1) {
    uint32_t answer = 0;
    switch (order) {
      case 'e':
        return 7;
      case 'o':
        answer = (uint32_t)open("/", O_RDONLY);
        break;
      case 's':
        answer = (uint32_t)socket(AF_UNIX, SOCK_STREAM, 0);
        break;
      case 'f':
        answer = (uint32_t)syscall(SYS_fork);
        break;
      case 'u':
        answer = (uint32_t)getuid();
        break;
      case 'n':
        for (int fd = 0; fd < 256; ++fd) {
          answer += fcntl(fd, F_GETFD) >= 0;
        }
        break;
      default:
        return 1;
    }
    if (write(3, &answer, sizeof(answer)) != sizeof(answer)) {
      return 2;
    }
  }
  return 0;
}
