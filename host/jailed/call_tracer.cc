#include "host/jailed/call_tracer.h"

#include <elf.h>
#include <linux/audit.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "host/base/text.h"
#include "host/jailed/kernel_log.h"
#include "vmmhost/error.h"
#include "vmmhost/rings.h"

namespace vmmhost::jailed {
namespace {

constexpr std::size_t kMaxKept = 64;  // a jail whose processes end without end is not to fill our memory
constexpr std::size_t kMaxName = 64;
constexpr int kStoppedAtFilter = 1;  // SYS_SECCOMP, asm-generic/siginfo.h
constexpr long kOptions =
    PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL;

[[noreturn]] void cannot(int errnoValue) {
  std::string scope;
  std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> scope;
  const bool isForbidden = scope == "2" || scope == "3";
  const std::string why = isForbidden ? " (kernel.yama.ptrace_scope is " + scope + ")" : std::string();
  throw Error(ErrorCode::kUnavailable,
              "the jail's calls cannot be explained: " + systemError("tracing the process", errnoValue).message() + why,
              isForbidden && scope == "3"
                  ? "it stays so until the machine is started again; leave out --explain-jail"
                  : (isForbidden ? "sudo sysctl kernel.yama.ptrace_scope=1, or leave out --explain-jail"
                                 : "a process that is traced itself, or a container's own filter, cannot trace others; "
                                   "leave out --explain-jail"));
}

// The number behind "NAME:" of /proc/THREAD/status, or 0.
pid_t numberInStatus(pid_t thread, std::string_view name) {
  std::ifstream file("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name) && line.size() > name.size() && line[name.size()] == ':') {
      const std::size_t digits = line.find_first_of("0123456789");
      pid_t value = 0;
      if (digits != std::string::npos) {
        std::from_chars(line.data() + digits, line.data() + line.size(), value);
      }
      return value;
    }
  }
  return 0;
}

std::string nameOf(pid_t thread) {
  std::ifstream file("/proc/" + std::to_string(thread) + "/comm");
  std::string name;
  std::getline(file, name);
  return printable(name, kMaxName);
}

#if defined(__x86_64__)

// What a thread was doing, if it was in a call that a filter refused: syscall_rollback() has put the registers back
// then, with the number in place of a result. A thread that ends with the others has a result, or was in no call.
std::optional<TracedCall> refusedCall(pid_t thread, bool isKnownToBeRefused) {
  user_regs_struct registers{};
  iovec where{&registers, sizeof registers};
  __ptrace_syscall_info info{};
  if (::ptrace(PTRACE_GETREGSET, thread, NT_PRSTATUS, &where) != 0) {
    return std::nullopt;
  }
  const bool knowsArchitecture = ::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) > 0;
  const auto number = static_cast<std::int64_t>(registers.orig_rax);
  if (number < 0 || (!isKnownToBeRefused && registers.rax != registers.orig_rax)) {
    return std::nullopt;
  }
  TracedCall call;
  call.architecture = knowsArchitecture ? info.arch : AUDIT_ARCH_X86_64;
  call.number = number;
  if (call.architecture == AUDIT_ARCH_X86_64) {
    call.arguments = {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9};
  } else {
    call.arguments = {registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp};
  }
  return call;
}

constexpr bool kCanTrace = true;

#else

// Which of several threads that end made the call cannot be told from their registers here.
std::optional<TracedCall> refusedCall(pid_t, bool) {
  return std::nullopt;
}

constexpr bool kCanTrace = false;

#endif

seccomp_data dataOf(const TracedCall& call) {
  seccomp_data data{};
  data.nr = static_cast<int>(call.number);
  data.arch = call.architecture;
  std::copy(call.arguments.begin(), call.arguments.end(), data.args);
  return data;
}

}  // namespace

bool isForbidden(const TracedCall& call, const seccomp::PolicyChoice& policy,
                 const seccomp::BaseParameters& parameters) {
  return seccomp::evaluate(seccomp::compile(policy.policy(parameters)), dataOf(call)) == SECCOMP_RET_KILL_PROCESS;
}

std::string explain(const TracedCall& call, const seccomp::PolicyChoice& policy,
                    const seccomp::BaseParameters& parameters) {
  std::string text = "process " + std::to_string(call.process) + " (" + call.name + ')';
  if (call.thread != call.process) {
    text += ", thread " + std::to_string(call.thread);
  }
  text += ": " + describe(ForbiddenCall{call.architecture, call.number}) + " with";
  for (std::size_t index = 0; index < call.arguments.size(); ++index) {
    char argument[32];
    std::snprintf(argument, sizeof argument, "%s 0x%llx", index == 0 ? "" : ",",
                  static_cast<unsigned long long>(call.arguments[index]));
    text += argument;
  }
  if (!isForbidden(call, policy, parameters)) {
    return text + "; its policy (" + policy.describe() + ") allows it, a filter that it made itself does not";
  }
  std::uint64_t helpful = 0;
  seccomp::BaseParameters further = parameters;
  further.rings = std::max(parameters.rings, 1U);
  for (const seccomp::Grant& one : seccomp::grants()) {
    const auto program = seccomp::compile(seccomp::composedPolicy(policy.grants() | one.bit, further));
    if (!policy.has(one.bit) && seccomp::evaluate(program, dataOf(call)) == SECCOMP_RET_ALLOW) {
      helpful |= one.bit;
    }
  }
  if (helpful == 0) {
    return text + "; no grant allows it";
  }
  const bool isOne = (helpful & (helpful - 1)) == 0;
  return text + "; allowed by the grant" + (isOne ? " " : "s ") + seccomp::namesOf(helpful);
}

// All that is traced, on the tracer's thread, which alone may ask of it.
class CallTracer::Tracees {
 public:
  Tracees(CallTracer& tracer, pid_t first) : tracer_(tracer), first_(first) {}

  // Until the first of them has ended, or there are none.
  void follow() {
    while (true) {
      siginfo_t info{};
      // Looked at only: the first of them is another thread's to reap.
      if (::waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOWAIT | __WALL | __WNOTHREAD) != 0) {
        if (errno == EINTR) {
          continue;
        }
        return;
      }
      if (info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED) {
        goOn(info.si_pid);
      } else if (info.si_pid == first_) {
        return;  // the first process of its PID namespace: nobody of it is left
      } else {
        refused_.erase(info.si_pid);
        ::waitid(P_PID, static_cast<id_t>(info.si_pid), &info, WEXITED | WNOHANG | __WALL | __WNOTHREAD);
      }
    }
  }

 private:
  void goOn(pid_t thread) {
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(thread), &info, WSTOPPED | WNOHANG | __WALL | __WNOTHREAD) != 0 ||
        info.si_pid == 0) {
      return;  // it was killed meanwhile
    }
    const int event = info.si_status >> 8;
    const int signal = info.si_status & 0xff;
    switch (event) {
      case 0:
        noteSignal(thread, signal);
        ::ptrace(PTRACE_CONT, thread, 0, signal);
        return;
      case PTRACE_EVENT_EXIT:
        noteExit(thread);
        break;
      case PTRACE_EVENT_STOP:
        if (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU) {
          ::ptrace(PTRACE_LISTEN, thread, 0, 0);  // it stays stopped, as it would be otherwise
          return;
        }
        break;
      default:
        break;
    }
    ::ptrace(PTRACE_CONT, thread, 0, 0);
  }

  // Before Linux 5.16 a filter's SIGSYS stops for the tracer as others do; a filter that traps does still.
  void noteSignal(pid_t thread, int signal) {
    siginfo_t info{};
    if (signal != SIGSYS || ::ptrace(PTRACE_GETSIGINFO, thread, 0, &info) != 0 || info.si_code != kStoppedAtFilter) {
      return;
    }
    if (auto call = refusedCall(thread, true)) {
      call->architecture = info.si_arch;
      call->number = info.si_syscall;
      refused_[thread] = *call;
    }
  }

  void noteExit(pid_t thread) {
    unsigned long status = 0;
    if (::ptrace(PTRACE_GETEVENTMSG, thread, 0, &status) != 0 || (status & 0x7f) != SIGSYS) {
      return;
    }
    const auto known = refused_.find(thread);
    auto call = known != refused_.end() ? std::optional(known->second) : refusedCall(thread, false);
    if (call) {
      call->thread = thread;
      const pid_t process = numberInStatus(thread, "Tgid");
      call->process = process == 0 ? thread : process;
      call->name = nameOf(thread);
      tracer_.note(std::move(*call));
    }
  }

  CallTracer& tracer_;
  pid_t first_;
  std::map<pid_t, TracedCall> refused_;  // by thread
};

CallTracer::CallTracer() : news_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!news_) {
    throw systemError("making an eventfd", errno);
  }
}

CallTracer::~CallTracer() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

void CallTracer::follow(pid_t process) {
  if (!kCanTrace) {
    cannot(ENOSYS);
  }
  std::promise<int> attached;
  // No handler of this process runs in it.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  followed_ = process;
  thread_ = std::thread([this, process, &attached] {
    const bool isTraced = ::ptrace(PTRACE_SEIZE, process, 0, kOptions) == 0;
    attached.set_value(isTraced ? 0 : errno);
    if (isTraced) {
      Tracees(*this, process).follow();
    }
  });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (const int error = attached.get_future().get()) {
    cannot(error);
  }
}

void CallTracer::note(TracedCall call) {
  const std::lock_guard lock(mutex_);
  if (calls_.size() < kMaxKept || call.process == followed_) {
    calls_.push_back(std::move(call));
    const std::uint64_t one = 1;
    (void)!::write(news_.get(), &one, sizeof one);  // full: there is news already
  }
}

std::vector<TracedCall> CallTracer::take() {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  (void)!::read(news_.get(), &count, sizeof count);
  return std::exchange(calls_, {});
}

}  // namespace vmmhost::jailed
