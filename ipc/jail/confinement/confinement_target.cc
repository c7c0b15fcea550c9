// The process that tests look at: does what its arguments say, writes one byte to descriptor 3, and stays until
// descriptor 3 ends. Static, without any library of this tree, so that it runs in an empty root in every build.
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace {

void* stay(void*) {
  for (;;) {
    ::pause();
  }
}

void* nothing(void*) {
  return nullptr;
}

void* startThreadsWithoutEnd(void*) {
  for (;;) {
    pthread_t thread;
    if (::pthread_create(&thread, nullptr, nothing, nullptr) == 0) {
      ::pthread_join(thread, nullptr);
    }
  }
}

void startThread(void* (*body)(void*)) {
  pthread_t thread;
  ::pthread_create(&thread, nullptr, body, nullptr);
}

void addFilter() {
  sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  sock_fprog program{1, &allow};
  ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const auto is = [&](const char* name) { return std::strcmp(argv[i], name) == 0; };
    if (is("thread")) {
      startThread(stay);
    } else if (is("churn")) {
      startThread(startThreadsWithoutEnd);
    } else if (is("filter")) {
      addFilter();
    } else if (is("descriptor")) {
      [[maybe_unused]] const int fd = ::dup(3);
    } else if (is("ring")) {
      io_uring_params parameters{};
      ::dup2(static_cast<int>(::syscall(SYS_io_uring_setup, 1, &parameters)), 4);
      ::close(0);
    } else if (is("file-as-ring")) {
      ::dup2(3, 4);
    } else if (is("non-dumpable")) {
      ::prctl(PR_SET_DUMPABLE, 0);
    } else if (is("child") && ::fork() == 0) {
      stay(nullptr);
    }
  }
  char byte = 'r';
  if (::write(3, &byte, 1) != 1) {
    return 1;
  }
  while (::read(3, &byte, 1) > 0) {
  }
  ::_exit(0);
}
