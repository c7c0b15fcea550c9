/* The program that tests start in a jail: reads one-byte orders from descriptor 3 and carries them out.
 *   e: exit with code 7          o: open("/")              s: socket()            f: fork()
 *   u: answers its user id as 4 bytes                      n: answers the number of its open descriptors as 4 bytes
 *   r: answers the length of its last argument as 4 bytes; R: io_uring_enter on descriptor 5, answers its errno;
 *   p: epoll_create1(), answers the descriptor             d: duplicates descriptor 3, answers the descriptor
 *   q: queues signals until it may queue no more, answers how many
 *   t: is no longer dumpable      l: writes 1 MiB of lines to descriptor 2, and one that has no end
 *   g: takes 32 MiB of memory
 *   x: io_uring_enter on descriptor 3      m: io_uring_setup                       b: registers buffers on descriptor 4
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static char room[32 << 20];

/* The descriptors may be non-blocking. */
static void await(int descriptor, short events) {
  struct pollfd ready = {descriptor, events, 0};
  ppoll(&ready, 1, NULL, NULL);
}

static int next(char* order) {
  ssize_t got;
  while ((got = read(3, order, 1)) < 0 && errno == EAGAIN) {
    await(3, POLLIN);
  }
  return got == 1;
}

static void say(const char* text, size_t length) {
  while (length > 0) {
    const ssize_t written = write(2, text, length);
    if (written > 0) {
      text += written;
      length -= (size_t)written;
    } else if (written < 0 && errno == EAGAIN) {
      await(2, POLLOUT);
    } else {
      return;
    }
  }
}

int main(int argc, char** argv) {
  char order;
  while (next(&order)) {
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
      case 't':
        answer = (uint32_t)prctl(PR_SET_DUMPABLE, 0);
        break;
      case 'l': {
        static const char line[] = "W nobody wants to know this, however often it is said....abcdef\n";
        for (size_t written = 0; written < 1 << 20; written += sizeof(line) - 1) {
          say(line, sizeof(line) - 1);
        }
        say("the last", 8);
        break;
      }
      case 'g':
        memset(room, 1, sizeof(room));
        answer = (uint32_t)room[argc];
        break;
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
