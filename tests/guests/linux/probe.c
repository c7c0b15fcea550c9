// What tests want to know of a Linux guest, in the guest and beside it: streams that check themselves, over vsock and
// over the host's sockets for it, and the time.
//
//   probe now                             nanoseconds of the system's clock
//   probe connect PORT send|receive N     over vsock, to the host
//   probe listen PORT send|receive N      over vsock, for one client
//   probe client SOCKET PORT send|receive N    at the host, to a guest: its vsock socket, CONNECT PORT
//   probe service SOCKET send|receive N        at the host, for one guest: listens on the socket
//   probe io FILE read|write SIZE DEPTH SECONDS    requests of SIZE bytes at random places, DEPTH at a time
//
// Instead of send and receive, ping and pong: N round trips of 64 bytes, one after the other. "probe: N round trips, US".
// io says "probe: REQUESTS a second, BYTES a second, US of latency"; it passes the page cache by.
//
// N bytes, a multiple of 64 KiB, of a sequence that both sides know; who receives compares every word. Then the side
// that received says so with one byte, so that nothing is lost that was not asked for. Both print
// "probe: N bytes, ALL or the first wrong word, SECONDS".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/vm_sockets.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { kChunk = 65536 };

static _Noreturn void fail(const char* what) {
  fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t nowNs(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t step(uint64_t* state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return *state;
}

static void writeAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t count = write(fd, data, size);
    if (count < 0) {
      fail("write");
    }
    data += count;
    size -= (size_t)count;
  }
}

static void readAll(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t count = read(fd, data, size);
    if (count <= 0) {
      errno = count == 0 ? EPIPE : errno;
      fail("read");
    }
    data += count;
    size -= (size_t)count;
  }
}

static int roundTrips(int fd, int begins, uint64_t count) {
  char message[64] = {0};
  const uint64_t began = nowNs(CLOCK_MONOTONIC);
  for (uint64_t done = 0; done < count; ++done) {
    if (begins) {
      writeAll(fd, message, sizeof message);
    }
    readAll(fd, message, sizeof message);
    if (!begins) {
      writeAll(fd, message, sizeof message);
    }
  }
  const double seconds = (double)(nowNs(CLOCK_MONOTONIC) - began) / 1e9;
  printf("probe: %llu round trips, %.1f us each\n", (unsigned long long)count, seconds * 1e6 / (double)count);
  return 0;
}

// By the kernel's asynchronous I/O, as fio has it with libaio: what is done is taken together, and asked anew together.
static int io(char** words) {
  enum { kMost = 64 };
  static struct iocb blocks[kMost];
  const int depth = atoi(words[3]);
  if (depth < 1 || depth > kMost) {
    errno = EINVAL;
    fail("depth");
  }
  const int writes = strcmp(words[1], "write") == 0;
  const int fd = open(words[0], (writes ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
  const size_t size = (size_t)atol(words[2]);
  const off_t end = lseek(fd, 0, SEEK_END);
  if (fd < 0 || end < (off_t)size || size == 0) {
    fail(words[0]);
  }
  const uint64_t places = (uint64_t)end / size;
  uint64_t state = 1;
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, depth, &context) != 0) {
    fail("io_setup");
  }
  struct iocb* asked[kMost];
  for (int i = 0; i < depth; ++i) {
    void* buffer = NULL;
    if (posix_memalign(&buffer, 4096, size) != 0) {
      fail("memory");
    }
    memset(buffer, 0x5a, size);
    blocks[i] = (struct iocb){.aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                              .aio_fildes = (uint32_t)fd,
                              .aio_buf = (uintptr_t)buffer,
                              .aio_nbytes = size,
                              .aio_data = (uint64_t)i};
    asked[i] = &blocks[i];
  }
  const uint64_t began = nowNs(CLOCK_MONOTONIC);
  const uint64_t until = began + (uint64_t)(atof(words[4]) * 1e9);
  uint64_t all = 0;
  int wanted = depth;
  for (int underWay = 0; wanted + underWay > 0;) {
    for (int i = 0; i < wanted; ++i) {
      asked[i]->aio_offset = (int64_t)((step(&state) >> 16) % places * size);
    }
    for (int done = 0; done < wanted;) {
      const long count = syscall(SYS_io_submit, context, (long)(wanted - done), asked + done);
      if (count <= 0) {
        fail("io_submit");
      }
      done += (int)count;
    }
    underWay += wanted;
    struct io_event events[kMost];
    const long count = syscall(SYS_io_getevents, context, 1L, (long)kMost, events, NULL);
    if (count < 1) {
      fail("io_getevents");
    }
    const int goesOn = nowNs(CLOCK_MONOTONIC) < until;
    wanted = goesOn ? (int)count : 0;
    for (long i = 0; i < count; ++i) {
      if (events[i].res != (int64_t)size) {
        fail("request");
      }
      asked[i] = &blocks[events[i].data];
    }
    underWay -= (int)count;
    all += (uint64_t)count;
  }
  const double seconds = (double)(nowNs(CLOCK_MONOTONIC) - began) / 1e9;
  printf("probe: %s %s %d: %.0f a second, %.0f bytes a second, %.1f us of latency\n", words[1], words[2], depth,
         (double)all / seconds, (double)all * (double)size / seconds, seconds * 1e6 * depth / (double)all);
  return 0;
}

static int transfer(int fd, const char* direction, uint64_t bytes) {
  if (strcmp(direction, "ping") == 0 || strcmp(direction, "pong") == 0) {
    return roundTrips(fd, direction[1] == 'i', bytes);
  }
  static uint64_t words[kChunk / sizeof(uint64_t)];
  uint64_t state = 1;
  const uint64_t began = nowNs(CLOCK_MONOTONIC);
  const int sends = strcmp(direction, "send") == 0;
  for (uint64_t done = 0; done < bytes; done += kChunk) {
    if (!sends) {
      readAll(fd, (char*)words, sizeof words);
    }
    for (size_t i = 0; i < kChunk / sizeof(uint64_t); ++i) {
      const uint64_t word = step(&state);
      if (sends) {
        words[i] = word;
      } else if (words[i] != word) {
        printf("probe: wrong at byte %llu\n", (unsigned long long)(done + i * sizeof(uint64_t)));
        return 1;
      }
    }
    if (sends) {
      writeAll(fd, (const char*)words, sizeof words);
    }
  }
  char mark = '!';
  if (sends) {
    readAll(fd, &mark, 1);
    char more;
    if (read(fd, &more, 1) != 0) {
      puts("probe: more came than the mark");
      return 1;
    }
  } else {
    writeAll(fd, &mark, 1);
    if (shutdown(fd, SHUT_WR) != 0) {
      fail("shutdown");
    }
  }
  const double seconds = (double)(nowNs(CLOCK_MONOTONIC) - began) / 1e9;
  printf("probe: %llu bytes, all as expected, %.2f s\n", (unsigned long long)bytes, seconds);
  return 0;
}

static int vsock(unsigned port, int listens) {
  const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = listens ? VMADDR_CID_ANY : 2, .svm_port = port};
  if (fd < 0) {
    fail("AF_VSOCK");
  }
  if (!listens) {
    if (connect(fd, (struct sockaddr*)&address, sizeof address) != 0) {
      fail("connect");
    }
    return fd;
  }
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 1) != 0) {
    fail("listen");
  }
  puts("probe: listening");
  fflush(stdout);
  const int client = accept(fd, NULL, NULL);
  if (client < 0) {
    fail("accept");
  }
  return client;
}

static struct sockaddr_un unixAddress(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    fail(path);
  }
  strcpy(address.sun_path, path);
  return address;
}

static int client(const char* path, const char* port) {
  const struct sockaddr_un address = unixAddress(path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr*)&address, sizeof address) != 0) {
    fail(path);
  }
  char line[64];
  writeAll(fd, line, (size_t)snprintf(line, sizeof line, "CONNECT %s\n", port));
  size_t length = 0;
  do {
    if (length == sizeof line - 1) {
      errno = EPROTO;
      fail("the answer to CONNECT");
    }
    readAll(fd, line + length, 1);
  } while (line[length++] != '\n');
  if (strncmp(line, "OK ", 3) != 0) {
    errno = EPROTO;
    fail("the answer to CONNECT");
  }
  return fd;
}

static int service(const char* path) {
  const struct sockaddr_un address = unixAddress(path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (const struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 1) != 0) {
    fail(path);
  }
  puts("probe: listening");
  fflush(stdout);
  const int guest = accept(fd, NULL, NULL);
  if (guest < 0) {
    fail("accept");
  }
  return guest;
}

int main(int count, char** words) {
  if (count == 2 && strcmp(words[1], "now") == 0) {
    printf("probe: %llu ns\n", (unsigned long long)nowNs(CLOCK_REALTIME));
    return 0;
  }
  if (count == 5 && strcmp(words[1], "connect") == 0) {
    return transfer(vsock((unsigned)atoi(words[2]), 0), words[3], strtoull(words[4], NULL, 0));
  }
  if (count == 5 && strcmp(words[1], "listen") == 0) {
    return transfer(vsock((unsigned)atoi(words[2]), 1), words[3], strtoull(words[4], NULL, 0));
  }
  if (count == 6 && strcmp(words[1], "client") == 0) {
    return transfer(client(words[2], words[3]), words[4], strtoull(words[5], NULL, 0));
  }
  if (count == 5 && strcmp(words[1], "service") == 0) {
    return transfer(service(words[2]), words[3], strtoull(words[4], NULL, 0));
  }
  if (count == 7 && strcmp(words[1], "io") == 0) {
    return io(words + 2);
  }
  fprintf(stderr, "probe: see the head of probe.c\n");
  return 125;
}
