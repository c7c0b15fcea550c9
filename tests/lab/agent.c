// The lab's agent: process 1 of the outer machine once its root is in place. It runs the job's command and carries its
// standard streams, its exit code and its output folder over one virtio-serial port.
//
//   agent JOB TIMES
//
// JOB is a file of records that end with a zero byte, the first byte of each tells what it is: a argument, e NAME=VALUE,
// d working directory, o output folder, s "1" if there is standard input. TIMES is text for the first frame.
//
// A frame is a type (1 byte), a length (4 bytes, little-endian) and that many bytes. To the host: h started, b still
// alive, o and e output, i input wanted, t a piece of a tar archive, f the lab failed (text), x the exit code (1 byte),
// always the last. From the host: i input, at most kMaxData and only when wanted; none means end of input.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/hpet.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_NAME "vmmhost.lab"

enum {
  kMaxData = 32 << 10,
  kMaxRecords = 4096,
  kHeartbeatMs = 2000,
  kPortTries = 3000,  // a few milliseconds each
  kStirHz = 64,
};

struct Job {
  char* arguments[kMaxRecords + 1];
  char* environment[kMaxRecords + 1];
  char* folder;
  char* output;
  int hasInput;
};

static int port = -1;

static _Noreturn void powerOff(void) {
  sync();
  reboot(RB_POWER_OFF);
  for (;;) {
    pause();
  }
}

static void sendFrame(char type, const void* data, size_t size) {
  char frame[5 + kMaxData];
  size_t done = 0;
  const uint32_t length = (uint32_t)size;
  frame[0] = type;
  memcpy(frame + 1, &length, sizeof length);
  if (size > 0) {
    memcpy(frame + 5, data, size);
  }
  while (done < 5 + size) {
    const ssize_t count = write(port, frame + done, 5 + size - done);
    if (count < 0 && errno != EINTR) {
      powerOff();  // the host is gone
    }
    done += count > 0 ? (size_t)count : 0;
  }
}

// What is wrong with the lab, not with the command: the console has it even where there is no port yet.
__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  dprintf(2, "lab: %s\n", text);
  if (port >= 0) {
    sendFrame('f', text, strlen(text));
  }
  powerOff();
}

static void readJob(const char* path, struct Job* job) {
  size_t arguments = 0;
  size_t variables = 0;
  char* record = NULL;
  size_t room = 0;
  FILE* file = fopen(path, "r");
  if (file == NULL) {
    fail("%s: %s", path, strerror(errno));
  }
  while (getdelim(&record, &room, '\0', file) > 0) {
    char* value = strdup(record + 1);
    if (value == NULL || arguments == kMaxRecords || variables == kMaxRecords) {
      fail("%s is too large", path);
    }
    switch (record[0]) {
      case 'a': job->arguments[arguments++] = value; break;
      case 'e': job->environment[variables++] = value; break;
      case 'd': job->folder = value; break;
      case 'o': job->output = value; break;
      case 's': job->hasInput = value[0] == '1'; break;
      default: fail("%s: unknown record '%c'", path, record[0]);
    }
  }
  fclose(file);
  if (arguments == 0 || job->folder == NULL) {
    fail("%s names no command or no folder", path);
  }
}

// Without udev there are no names below /dev: the port's number follows from its name in sysfs.
static int openPort(void) {
  DIR* folder = opendir("/sys/class/virtio-ports");
  struct dirent* entry = NULL;
  int found = -1;
  while (folder != NULL && found < 0 && (entry = readdir(folder)) != NULL) {
    char path[512];
    char name[64] = "";
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
    FILE* file = fopen(path, "r");
    if (file == NULL) {
      continue;
    }
    if (fgets(name, sizeof name, file) != NULL && strcmp(name, PORT_NAME "\n") == 0) {
      snprintf(path, sizeof path, "/dev/%s", entry->d_name);
      found = open(path, O_RDWR | O_CLOEXEC);
    }
    fclose(file);
  }
  if (folder != NULL) {
    closedir(folder);
  }
  return found;
}

static void waitForPort(void) {
  // The driver names its ports in answers to messages: they appear a moment after it was loaded.
  for (int i = 0; (port = openPort()) < 0; ++i) {
    if (i == kPortTries) {
      fail("the virtio-serial port " PORT_NAME " did not appear");
    }
    usleep(2000);
  }
}

// QEMU loses interrupts: what its VMRUN and #VMEXIT change in the processor's word of requests (interrupt_request, the
// bit VIRQ) they change without a lock, and a request that another thread has put there at that moment is gone. The
// local APIC still has it, and any later interrupt makes the processor look; but one that waits for its only timer waits
// for ever. So there is always a later one: that of a timer (HPET) which nobody reads.
static void keepStirred(void) {
  const int timer = open("/dev/hpet", O_RDONLY | O_CLOEXEC);
  if (timer < 0 || ioctl(timer, HPET_IRQFREQ, (unsigned long)kStirHz) != 0 || ioctl(timer, HPET_EPI, 0) != 0 ||
      ioctl(timer, HPET_IE_ON, 0) != 0) {
    fail("/dev/hpet: %s", strerror(errno));
  }
}

static void makeOutputFolder(char* path) {
  for (char* at = strchr(path + 1, '/');; at = strchr(at + 1, '/')) {
    if (at != NULL) {
      *at = '\0';
    }
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
      fail("%s: %s", path, strerror(errno));
    }
    if (at == NULL) {
      break;
    }
    *at = '/';
  }
  if (mount("lab-output", path, "tmpfs", 0, "mode=0755") != 0) {
    fail("%s: %s", path, strerror(errno));
  }
}

static pid_t start(const struct Job* job, const int in[2], const int out[2], const int err[2]) {
  const pid_t child = fork();
  if (child != 0) {
    if (child < 0) {
      fail("fork: %s", strerror(errno));
    }
    return child;
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  setsid();
  dup2(in[0], 0);
  dup2(out[1], 1);
  dup2(err[1], 2);
  if (chdir(job->folder) != 0) {
    dprintf(2, "lab: %s: %s\n", job->folder, strerror(errno));
    _exit(125);
  }
  environ = (char**)job->environment;
  execvp(job->arguments[0], job->arguments);
  const int error = errno;
  dprintf(2, "lab: %s: %s\n", job->arguments[0], strerror(error));
  _exit(error == ENOENT ? 127 : 126);
}

static ssize_t pump(int from, char type, size_t limit) {
  char data[kMaxData];
  const ssize_t count = read(from, data, limit < sizeof data ? limit : sizeof data);
  if (count > 0) {
    sendFrame(type, data, (size_t)count);
  }
  return count;
}

// What is in the pipe now. What the command left running may hold its other end for ever.
static void drain(int from, char type) {
  int left = 0;
  if (from < 0 || ioctl(from, FIONREAD, &left) != 0) {
    return;
  }
  while (left > 0) {
    const ssize_t count = pump(from, type, (size_t)left);
    if (count <= 0) {
      return;
    }
    left -= (int)count;
  }
}

struct Input {
  char data[kMaxData];
  size_t size;
  size_t done;
  int ended;
};

static void readFully(char* to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t count = read(port, to + done, size - done);
    if (count == 0 || (count < 0 && errno != EINTR)) {
      powerOff();
    }
    done += count > 0 ? (size_t)count : 0;
  }
}

static void receiveInput(struct Input* input) {
  char header[5];
  uint32_t size;
  readFully(header, sizeof header);
  memcpy(&size, header + 1, sizeof size);
  if (header[0] != 'i' || size > kMaxData) {
    fail("the host sent a frame of type %d and %u bytes", header[0], size);
  }
  readFully(input->data, size);
  input->size = size;
  input->done = 0;
  input->ended = size == 0;
}

// Writes what is there; closes the pipe at the end of input, or when nobody reads it.
static void passInput(struct Input* input, int* to) {
  if (input->done < input->size) {
    const ssize_t count = write(*to, input->data + input->done, input->size - input->done);
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
      close(*to);
      *to = -1;
      return;
    }
    input->done += count > 0 ? (size_t)count : 0;
    if (input->done == input->size) {
      sendFrame('i', NULL, 0);
    }
  }
}

// Collects every child that ended; true once the command is among them.
static int reap(pid_t command, int* status) {
  int ended = 0;
  int each;
  for (pid_t pid; (pid = waitpid(-1, &each, WNOHANG)) > 0;) {
    if (pid == command) {
      *status = each;
      ended = 1;
    }
  }
  return ended;
}

static int runCommand(const struct Job* job, int signals) {
  int in[2];
  int out[2];
  int err[2];
  int status = 0;
  static struct Input input;
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    fail("pipe: %s", strerror(errno));
  }
  const pid_t command = start(job, in, out, err);
  close(in[0]);
  close(out[1]);
  close(err[1]);
  int to = in[1];
  fcntl(to, F_SETFL, O_NONBLOCK);
  if (job->hasInput) {
    sendFrame('i', NULL, 0);
  } else {
    close(to);
    to = -1;
  }
  for (;;) {
    struct pollfd ready[] = {
        {.fd = port, .events = POLLIN},
        {.fd = signals, .events = POLLIN},
        {.fd = out[0], .events = POLLIN},
        {.fd = err[0], .events = POLLIN},
        {.fd = input.done < input.size ? to : -1, .events = POLLOUT},
    };
    const int count = poll(ready, sizeof ready / sizeof ready[0], kHeartbeatMs);
    if (count < 0 && errno != EINTR) {
      fail("poll: %s", strerror(errno));
    }
    if (count == 0) {
      sendFrame('b', NULL, 0);
    }
    if (count <= 0) {
      continue;
    }
    if (ready[0].revents & POLLIN) {
      receiveInput(&input);
      if (input.ended && to >= 0) {
        close(to);
        to = -1;
      }
    } else if (ready[0].revents != 0) {
      powerOff();  // the host is gone
    }
    if (ready[2].revents != 0 && pump(out[0], 'o', kMaxData) <= 0) {
      close(out[0]);
      out[0] = -1;
    }
    if (ready[3].revents != 0 && pump(err[0], 'e', kMaxData) <= 0) {
      close(err[0]);
      err[0] = -1;
    }
    if (ready[4].revents != 0 && to >= 0) {
      passInput(&input, &to);
    }
    if (ready[1].revents != 0) {
      struct signalfd_siginfo information;
      (void)!read(signals, &information, sizeof information);
      if (reap(command, &status)) {
        drain(out[0], 'o');
        drain(err[0], 'e');
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      }
    }
  }
}

static void sendOutput(const char* folder) {
  int archive[2];
  int status = 0;
  if (pipe2(archive, O_CLOEXEC) != 0) {
    fail("pipe: %s", strerror(errno));
  }
  const pid_t child = fork();
  if (child == 0) {
    dup2(archive[1], 1);
    execl("/usr/bin/tar", "tar", "-C", folder, "-cf", "-", ".", NULL);
    _exit(127);
  }
  close(archive[1]);
  while (pump(archive[0], 't', kMaxData) > 0) {
  }
  close(archive[0]);
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    fail("tar of %s ended with status %d", folder, status);
  }
}

int main(int argc, char** argv) {
  static struct Job job;
  if (argc != 3) {
    fail("agent: two arguments wanted");
  }
  signal(SIGPIPE, SIG_IGN);
  waitForPort();
  keepStirred();
  readJob(argv[1], &job);
  if (job.output != NULL) {
    makeOutputFolder(job.output);
  }
  // As a login gives them; the kernel's own are smaller.
  const struct rlimit files = {1024, 524288};
  setrlimit(RLIMIT_NOFILE, &files);
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, NULL);
  const int signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) {
    fail("signalfd: %s", strerror(errno));
  }
  sendFrame('h', argv[2], strlen(argv[2]));
  const unsigned char code = (unsigned char)runCommand(&job, signals);
  if (job.output != NULL) {
    sendOutput(job.output);
  }
  sendFrame('x', &code, 1);
  // The host ends the machine once it has read all; until then it has to live.
  for (;;) {
    pause();
  }
}
