#include "tests/conformance/case_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "host/base/posix_spawn.h"
#include "tests/conformance/leaks.h"
#include "vmmhost/fd.h"

namespace vmmhost::conformance {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxVerdict = 64 * 1024;
constexpr std::size_t kKeptChatter = 2000;

struct Pipe {
  Fd read;
  Fd write;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      throw systemError("making a pipe", errno);
    }
    read = Fd(ends[0]);
    // Out of the way of the numbers that the child has them under.
    write = Fd(::fcntl(ends[1], F_DUPFD_CLOEXEC, 16));
    ::close(ends[1]);
    ::fcntl(read.get(), F_SETFL, O_NONBLOCK);
  }
};

// Until nothing of it lives; what was killed.
std::vector<pid_t> killFamily(const std::function<std::vector<pid_t>()>& living) {
  std::vector<pid_t> killed;
  for (auto found = living(); !found.empty(); found = living()) {
    for (const pid_t pid : found) {
      ::kill(pid, SIGKILL);
      killed.push_back(pid);
    }
  }
  return killed;
}

class CaseProcess {
 public:
  CaseProcess(const std::string& program, Job& job, std::chrono::milliseconds limit)
      : job_(job), started_(Clock::now()), deadline_(started_ + limit) {
    ::mkdir(job.folder.c_str(), 0700);
    for (const char* name : {"/run", "/state"}) {
      if (::mkdir((job.folder + name).c_str(), 0700) != 0) {
        throw systemError("making " + job.folder + name, errno);
      }
    }
    Pipe verdict;
    Pipe chatter;
    SpawnFileActions actions;
    actions.openNull(STDIN_FILENO, O_RDONLY);
    actions.duplicate(chatter.write.get(), STDOUT_FILENO);
    actions.duplicate(chatter.write.get(), STDERR_FILENO);
    actions.duplicate(verdict.write.get(), 3);
    actions.closeFrom(4);
    const SpawnAttributes attributes;
    std::vector<std::string> words = {program};
    words.insert(words.end(), job.arguments.begin(), job.arguments.end());
    std::vector<char*> arguments;
    for (std::string& word : words) {
      arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    const int error =
        ::posix_spawn(&pid_, program.c_str(), actions.get(), attributes.get(), arguments.data(), ::environ);
    if (error != 0) {
      throw systemError("starting " + program, error);
    }
    process_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    verdict_ = std::move(verdict.read);
    chatter_ = std::move(chatter.read);
  }
  ~CaseProcess() {
    if (pid_ > 0) {
      std::vector<pid_t> killed = killAll();
      collect();
      removeControlGroups(killed);
    }
    std::error_code ignored;
    std::filesystem::remove_all(job_.folder, ignored);
  }
  CaseProcess(const CaseProcess&) = delete;
  CaseProcess& operator=(const CaseProcess&) = delete;

  void addTo(std::vector<pollfd>& watched) const {
    for (const Fd* fd : {&verdict_, &chatter_, &process_}) {
      watched.push_back({fd->get(), POLLIN, 0});
    }
  }
  Clock::time_point deadline() const { return deadline_; }
  const Job& job() const { return job_; }
  pid_t pid() const { return pid_; }
  bool unclean() const { return unclean_; }  // it is over, and has not looked itself at what it left

  // Takes what has come; true once the case is over and its result complete.
  bool look(bool exited) {
    take(verdict_, verdictText_, kMaxVerdict);
    take(chatter_, chatterText_, 2 * kKeptChatter);
    if (exited) {
      finish("");
      return true;
    }
    if (Clock::now() >= deadline_) {
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(deadline_ - started_).count();
      finish("it did not end within " + std::to_string(seconds) + " s");
      return true;
    }
    return false;
  }

 private:
  static void take(Fd& from, std::string& into, std::size_t most) {
    char buffer[4096];
    while (from) {
      const ssize_t got = ::read(from.get(), buffer, sizeof(buffer));
      if (got > 0) {
        into.append(buffer, static_cast<std::size_t>(got));
        if (into.size() > most) {
          into.erase(0, into.size() - most);
        }
      } else if (got < 0 && errno == EINTR) {
        continue;
      } else {
        if (got == 0 || errno != EAGAIN) {
          from.reset();
        }
        break;
      }
    }
  }

  // Everything that descends from it: orphans fall to it, so that nothing is out of sight while it lives.
  std::vector<pid_t> killAll() const {
    ::kill(pid_, SIGSTOP);
    std::vector<pid_t> killed = killFamily([this]() { return descendants(pid_); });
    ::kill(pid_, SIGKILL);
    killed.push_back(pid_);
    return killed;
  }

  int collect() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

  void finish(const std::string& overdue) {
    std::vector<pid_t> killed = {pid_};
    if (!overdue.empty()) {
      killed = killAll();
    }
    const int status = collect();
    take(verdict_, verdictText_, kMaxVerdict);
    take(chatter_, chatterText_, 2 * kKeptChatter);
    Result& result = job_.result;
    result.milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_).count();
    std::string why = overdue;
    if (why.empty() && WIFSIGNALED(status)) {
      const char* name = ::sigabbrev_np(WTERMSIG(status));
      why = "its process was ended by SIG" + std::string(name == nullptr ? "?" : name);
    } else if (why.empty() && !decodeVerdict(verdictText_, result)) {
      why = "its process ended with code " + std::to_string(WEXITSTATUS(status)) + " and told no result";
    }
    if (!why.empty()) {
      unclean_ = true;
      removeControlGroups(killed);
      const std::size_t kept = std::min(chatterText_.size(), kKeptChatter);
      result.kind = Result::Kind::kFailed;
      result.detail = why + (kept == 0 ? "" : "; it said: " + chatterText_.substr(chatterText_.size() - kept));
    }
  }

  Job& job_;
  Clock::time_point started_;
  Clock::time_point deadline_;
  pid_t pid_ = -1;
  bool unclean_ = false;
  Fd process_;
  Fd verdict_;
  Fd chatter_;
  std::string verdictText_;
  std::string chatterText_;
};

// What a case that crashed left: it fell to this process, and belongs to none of the cases that run.
void endOrphans(const std::vector<std::unique_ptr<CaseProcess>>& running) {
  const std::vector<pid_t> killed = killFamily([&]() {
    std::vector<pid_t> orphans = descendants(::getpid());
    for (const auto& process : running) {
      std::vector<pid_t> kept = descendants(process->pid());
      kept.push_back(process->pid());
      std::erase_if(orphans, [&](pid_t pid) { return std::find(kept.begin(), kept.end(), pid) != kept.end(); });
    }
    return orphans;
  });
  for (const pid_t pid : killed) {
    ::waitpid(pid, nullptr, 0);
  }
  removeControlGroups(killed);
}

// SIGINT and SIGTERM as something to wait for, while it lives.
class SignalWatch {
 public:
  SignalWatch() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGINT);
    ::sigaddset(&set, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &set, &before_);
    fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalWatch() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  int descriptor() const { return fd_.get(); }
  int take() const {
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  sigset_t before_{};
  Fd fd_;
};

}  // namespace

int runJobs(const std::string& program, std::vector<Job>& jobs, const RunLimits& limits,
            const std::function<void(const Result&)>& done) {
  const SignalWatch signals;
  std::vector<std::unique_ptr<CaseProcess>> running;
  std::vector<bool> over(jobs.size());
  std::size_t next = 0;
  std::size_t told = 0;
  for (;;) {
    while (next < jobs.size() && running.size() < limits.jobs) {
      if (jobs[next].result.kind == Result::Kind::kAbsent) {
        over[next] = true;
      } else {
        running.push_back(std::make_unique<CaseProcess>(program, jobs[next], limits.caseDeadline));
      }
      ++next;
    }
    for (; told < jobs.size() && over[told]; ++told) {
      done(jobs[told].result);
    }
    if (running.empty() && next == jobs.size()) {
      return 0;
    }
    std::vector<pollfd> watched = {{signals.descriptor(), POLLIN, 0}};
    Clock::time_point first = Clock::time_point::max();
    for (const auto& process : running) {
      process->addTo(watched);
      first = std::min(first, process->deadline());
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(first - Clock::now()).count();
    ::poll(watched.data(), watched.size(), static_cast<int>(std::max<long long>(left, 0)));
    if (const int signal = signals.take()) {
      return signal;
    }
    for (std::size_t index = running.size(); index-- > 0;) {
      const bool exited = watched[1 + 3 * index + 2].revents != 0;
      if (running[index]->look(exited)) {
        over[static_cast<std::size_t>(&running[index]->job() - jobs.data())] = true;
        const bool unclean = running[index]->unclean();
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(index));
        if (unclean) {
          endOrphans(running);
        }
      }
    }
  }
}

}  // namespace vmmhost::conformance
