// Test helper: run-under-policy POLICY PROGRAM [ARGUMENT...] installs a base policy, or the one of a set of grants
// whose bits are given as a number, and executes the program by descriptor, as the spawn stub does.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "vmmhost/error.h"
#include "vmmhost/seccomp.h"

int main(int argc, char** argv) {
  using namespace vmmhost;
  if (argc < 3) {
    std::fprintf(stderr, "usage: run-under-policy POLICY PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  try {
    constexpr int kExecutable = 200;
    const int fd = ::open(argv[2], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::dup3(fd, kExecutable, O_CLOEXEC) < 0) {
      throw systemError(argv[2], errno);
    }
    ::close(fd);
    const rlimit limit{kExecutable, kExecutable};
    const char* endOfBits = argv[1];
    const std::uint64_t bits = std::strtoull(argv[1], const_cast<char**>(&endOfBits), 10);
    const auto choice = *endOfBits == '\0' ? seccomp::PolicyChoice::ofGrants(bits) : seccomp::PolicyChoice(argv[1]);
    const auto program = seccomp::compile(choice.policy({.executableDescriptor = kExecutable}));
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
      throw systemError("preparing", errno);
    }
    if (const int error = seccomp::install(program, false)) {
      throw systemError("seccomp", error);
    }
    ::syscall(SYS_execveat, kExecutable, "", argv + 2, environ, AT_EMPTY_PATH);
    std::fprintf(stderr, "execveat: %s\n", std::strerror(errno));
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 2;
}
