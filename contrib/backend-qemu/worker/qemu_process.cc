#include "worker/qemu_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "vmmhost/error.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;
using vmmhost::Fd;

namespace {

// Above every number that the child gets, so that placing one never overwrites another that is still to be placed.
constexpr int kStaging = 96;

struct ChildPlan {
  const char* program;
  char* const* arguments;
  char* const* environment;
  const int* sources;  // for numbers 0, 1, 2, ...
  int count;
  pid_t parent;
};

// Between fork and exec: system calls only.
[[noreturn]] void runChild(const ChildPlan& plan) noexcept {
  // A worker that is PID 1 of its namespace takes everything in it along; elsewhere the kernel has to be asked.
  if (plan.parent != 1) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != plan.parent) {
      ::_exit(127);
    }
  }
  for (int number = 0; number < plan.count; ++number) {
    if (::dup2(plan.sources[number], number) < 0) {
      ::_exit(127);
    }
  }
  ::execve(plan.program, plan.arguments, plan.environment);
  const char* reason = std::strerror(errno);
  if (::write(2, plan.program, std::strlen(plan.program)) >= 0 && ::write(2, ": ", 2) >= 0 &&
      ::write(2, reason, std::strlen(reason)) >= 0) {
    ::_exit(127);
  }
  ::_exit(127);
}

Fd staged(int descriptor) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, kStaging);
  if (copy < 0) {
    throw vmmhost::systemError("duplicating a descriptor for QEMU", errno);
  }
  return Fd(copy);
}

}  // namespace

QemuProcess::QemuProcess(const std::string& program, const std::vector<std::string>& arguments,
                         const std::vector<int>& descriptors) {
  if (descriptors.size() + kFirstDescriptor >= kStaging) {
    throw Error(ErrorCode::kInvalidArgument, "too many descriptors for QEMU");
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    throw vmmhost::systemError("making a pipe for QEMU's messages", errno);
  }
  output_.reset(ends[0]);
  const Fd childOutput(ends[1]);
  if (::fcntl(output_.get(), F_SETFL, O_NONBLOCK) != 0) {
    throw vmmhost::systemError("making a pipe non-blocking", errno);
  }
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) {
    throw vmmhost::systemError("/dev/null", errno);
  }

  std::vector<Fd> copies;
  copies.push_back(staged(null.get()));
  copies.push_back(staged(childOutput.get()));
  copies.push_back(staged(childOutput.get()));
  for (const int descriptor : descriptors) {
    copies.push_back(staged(descriptor));
  }
  std::vector<int> sources;
  sources.reserve(copies.size());
  for (const Fd& copy : copies) {
    sources.push_back(copy.get());
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  char* const environment[] = {nullptr};
  const ChildPlan plan = {program.c_str(), argv.data(), environment, sources.data(), static_cast<int>(sources.size()),
                          ::getpid()};
  pid_ = ::fork();
  if (pid_ < 0) {
    throw vmmhost::systemError("starting QEMU", errno);
  }
  if (pid_ == 0) {
    runChild(plan);
  }
}

QemuProcess::~QemuProcess() {
  killAndReap();
}

void QemuProcess::kill() noexcept {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
  }
}

ProcessEnd QemuProcess::killAndReap() noexcept {
  if (pid_ <= 0) {
    return {};
  }
  // A process that is already ending keeps its own exit code.
  kill();
  const pid_t pid = std::exchange(pid_, -1);
  int status = 0;
  pid_t reaped;
  do {
    reaped = ::waitpid(pid, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  if (reaped != pid) {
    return {};
  }
  if (WIFEXITED(status)) {
    return {ProcessEnd::Kind::kExited, WEXITSTATUS(status)};
  }
  return {ProcessEnd::Kind::kSignalled, WTERMSIG(status)};
}

}  // namespace qemubackend
