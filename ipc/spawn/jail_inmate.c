/* The program that spawn_test starts in a jail: reads one-byte orders from descriptor 3 and carries them out.
 *   e: exit with code 7          o: open("/")              s: socket()            f: fork()
 *   u: answers its user id as 4 bytes                      n: answers the number of its open descriptors as 4 bytes
 *   r: answers the length of its last argument as 4 bytes; R: io_uring_enter on descriptor 5, answers its errno;
 *   p: epoll_create1(), answers the descriptor             d: duplicates descriptor 3, answers the descriptor
 *   q: queues signals until it may queue no more, answers how many
 *   x: io_uring_enter on descriptor 3      m: io_uring_setup                       b: registers buffers on descriptor 4
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char** argv) {
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
      case 'r':
        answer = (uint32_t)strlen(argv[argc - 1]);
        break;
      case 'R':
        answer = syscall(SYS_io_uring_enter, 5, 0, 0, 0, NULL, 0) < 0 ? (uint32_t)errno : 0;
        break;
      case 'p':
        answer = (uint32_t)syscall(SYS_epoll_create1, 0);
        break;
      case 'd':
        answer = (uint32_t)fcntl(3, F_DUPFD_CLOEXEC, 0);
        break;
      case 'q': {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        while (answer < 1000 && syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGRTMAX) == 0) {
          ++answer;
        }
        break;
      }
      case 'x':
        answer = (uint32_t)syscall(SYS_io_uring_enter, 3, 0, 0, 0, NULL, 0);
        break;
      case 'm':
        answer = (uint32_t)syscall(SYS_io_uring_setup, 1, NULL);
        break;
      case 'b':
        answer = (uint32_t)syscall(SYS_io_uring_register, 4, 0, NULL, 0);
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
