/* Preloaded: the wall clock stands as many seconds off as the file that VMMHOST_FAULT_CLOCK names says, and that may
 * change at any time. Every other clock is as it is. Each time that somebody asks the wall clock, a byte is added to
 * the file of that name with ".asked". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void) {
  const char* path = getenv("VMMHOST_FAULT_CLOCK");
  char text[32] = "";
  char asked[256];
  int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return 0;
  }
  if (read(fd, text, sizeof text - 1) < 0) {
    text[0] = '\0';
  }
  close(fd);
  if (snprintf(asked, sizeof asked, "%s.asked", path) < (int)sizeof asked) {
    fd = open(asked, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
      (void)!write(fd, ".", 1);
      close(fd);
    }
  }
  return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  const long result = syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    now->tv_sec += offset();
  }
  return (int)result;
}

int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  struct timespec time;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &time) != 0) {
    return -1;
  }
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* now) {
  struct timespec time;
  if (clock_gettime(CLOCK_REALTIME, &time) != 0) {
    return (time_t)-1;
  }
  if (now != NULL) {
    *now = time.tv_sec;
  }
  return time.tv_sec;
}
