#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "tests/hostile/tracer.h"

namespace vmmhost::hostile {
namespace {

constexpr auto kGetFilter = static_cast<__ptrace_request>(0x420c);  // PTRACE_SECCOMP_GET_FILTER
constexpr long kSuspendSeccomp = 1 << 21;                           // PTRACE_O_SUSPEND_SECCOMP
constexpr long kFollow = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                         PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD;
constexpr int kSystemCallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD

std::runtime_error failure(const char* what) {
  return std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

// argv[0] of a process: the worker is executed by descriptor, so that no other name of it is certain.
std::string nameOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::string name;
  std::getline(file, name, '\0');
  return name;
}

[[noreturn]] void execute(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                          const std::string& folder, int output) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  std::vector<char*> variables;
  for (const std::string& variable : environment) {
    variables.push_back(const_cast<char*>(variable.c_str()));
  }
  variables.push_back(nullptr);
  ::dup2(::open("/dev/null", O_RDONLY), 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  if (::chdir(folder.c_str()) != 0 || ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
    ::_exit(99);
  }
  ::raise(SIGSTOP);
  ::execve(arguments[0], arguments.data(), variables.data());
  ::_exit(98);
}

// Kills a supervisor while its first child stands before a system call.
class Killing {
 public:
  explicit Killing(int atCall) : atCall_(atCall) {}

  // To be told each stop; `isFirst`: the one with which a tracee begins. True: it is to be left as it is.
  bool seeStop(pid_t pid, int status, bool isFirst) {
    if (atCall_ == 0) {
      return false;
    }
    // It may come before its parent tells of it, and until then nobody knows whose child it is.
    if (isFirst && announced_.count(pid) == 0) {
      held_.insert(pid);
      return true;
    }
    const int event = status >> 16;
    if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
      unsigned long number = 0;
      ::ptrace(PTRACE_GETEVENTMSG, pid, nullptr, &number);
      seeBirth(pid, static_cast<pid_t>(number), event);
    }
    if (pid != child_) {
      return false;
    }
    if (event == PTRACE_EVENT_EXEC) {
      stopWatching();
      return false;
    }
    if (WSTOPSIG(status) != kSystemCallStop || ++stops_ < 2 * atCall_ - 1) {
      return false;
    }
    ::kill(supervisor_, SIGKILL);
    wasKilled_ = true;
    stopWatching();
    return true;
  }
  // To be told each end. The child goes on where nobody traces it once its parent is gone.
  void seeEnd(pid_t pid) {
    if (wasKilled_ && pid == supervisor_) {
      ::ptrace(PTRACE_DETACH, child_, nullptr, nullptr);
    }
  }
  bool isWatching(pid_t pid) const { return atCall_ > 0 && pid == child_; }
  bool wasKilled() const { return wasKilled_; }
  Fd takeChild() { return std::move(pidfd_); }

 private:
  void seeBirth(pid_t parent, pid_t child, int event) {
    if (child_ < 0 && event == PTRACE_EVENT_FORK && nameOf(parent).find("vmmhost-supervisor") != std::string::npos) {
      supervisor_ = parent;
      child_ = child;
      pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    }
    announced_.insert(child);
    if (held_.erase(child) > 0) {
      ::ptrace(isWatching(child) ? PTRACE_SYSCALL : PTRACE_CONT, child, nullptr, nullptr);
    }
  }
  void stopWatching() {
    atCall_ = 0;
    for (const pid_t held : held_) {
      ::ptrace(PTRACE_CONT, held, nullptr, nullptr);
    }
    held_.clear();
  }

  int atCall_;
  int stops_ = 0;
  bool wasKilled_ = false;
  pid_t supervisor_ = -1;
  pid_t child_ = -1;
  Fd pidfd_;
  std::set<pid_t> announced_, held_;
};

}  // namespace

Filters filtersOf(pid_t thread) {
  Filters filters;
  for (unsigned long index = 0;; ++index) {
    const long length = ::ptrace(kGetFilter, thread, index, nullptr);
    if (length < 0) {
      if (errno == ENOENT || (errno == EINVAL && index == 0)) {  // EINVAL: not under filters
        return filters;
      }
      throw failure("PTRACE_SECCOMP_GET_FILTER");
    }
    std::vector<sock_filter> program(static_cast<std::size_t>(length));
    if (::ptrace(kGetFilter, thread, index, program.data()) != length) {
      throw failure("PTRACE_SECCOMP_GET_FILTER");
    }
    filters.push_back(std::move(program));
  }
}

Traced trace(const std::vector<std::string>& command, const std::vector<std::string>& environment,
             const std::string& folder, const TraceOptions& options) {
  Traced result;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw failure("pipe");
  }
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  ::fcntl(reader.get(), F_SETFL, O_NONBLOCK);
  const pid_t first = ::fork();
  if (first == 0) {
    execute(command, environment, folder, writer.get());
  }
  writer.reset();
  const auto drain = [&] {
    std::array<char, 4096> block{};
    for (ssize_t got = 0; (got = ::read(reader.get(), block.data(), block.size())) > 0;) {
      result.output.append(block.data(), static_cast<std::size_t>(got));
    }
  };
  int status = 0;
  if (::waitpid(first, &status, __WALL) != first || !WIFSTOPPED(status) ||
      ::ptrace(PTRACE_SETOPTIONS, first, nullptr, kFollow) != 0) {
    throw failure("tracing");
  }
  ::ptrace(PTRACE_CONT, first, nullptr, nullptr);
  Killing killing(options.killAtCall);
  std::set<pid_t> started;  // seen to stop once: a new tracee begins with a SIGSTOP
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, __WALL)) > 0;) {
    drain();
    if (!WIFSTOPPED(status)) {
      if (pid == first) {
        result.exitCode = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      killing.seeEnd(pid);
      continue;
    }
    const bool isFirst = status >> 8 == SIGSTOP && pid != first && started.insert(pid).second;
    if (killing.seeStop(pid, status, isFirst)) {
      continue;
    }
    int signal = WSTOPSIG(status);
    const bool isExec = status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8));
    if (isExec && nameOf(pid) == options.worker && !result.wasSeen) {
      result.wasSeen = true;
      if (options.suspendSeccomp && ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, kFollow | kSuspendSeccomp) != 0) {
        throw failure("PTRACE_O_SUSPEND_SECCOMP");
      }
      if (options.atExec) {
        options.atExec(pid);
      }
    }
    if (status >> 16 != 0 || signal == kSystemCallStop || isFirst) {
      signal = 0;
    }
    ::ptrace(killing.isWatching(pid) ? PTRACE_SYSCALL : PTRACE_CONT, pid, nullptr, signal);
  }
  drain();
  result.wasKilled = killing.wasKilled();
  result.child = killing.takeChild();
  return result;
}

std::vector<Filters> filtersOfThreads(pid_t process) {
  std::vector<Filters> all;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
    const pid_t thread = std::stoi(entry.path().filename().string());
    int status = 0;
    if (::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0 ||
        ::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0 || ::waitpid(thread, &status, __WALL) != thread) {
      throw failure("stopping a thread");
    }
    all.push_back(filtersOf(thread));
    ::ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
  }
  return all;
}

}  // namespace vmmhost::hostile
