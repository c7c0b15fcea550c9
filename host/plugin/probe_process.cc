#include "host/plugin/probe_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <system_error>

#include "host/base/posix_spawn.h"
#include "host/plugin/host_api.h"
#include "host/plugin/log_sink.h"

namespace vmmhost::plugin {
namespace {

using Clock = std::chrono::steady_clock;

std::string secondsText(std::chrono::milliseconds time) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%g s", static_cast<double>(time.count()) / 1000.0);
  return text.data();
}

// Descriptors of the child are put at 3 and 4 one after the other: the sources must be out of the way.
Fd high(int descriptor) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 16);
  if (copy < 0) {
    throw systemError("duplicating a descriptor", errno);
  }
  return Fd(copy);
}

// One running probe. Its destructor leaves no process behind.
class Probe {
 public:
  Probe() = default;
  Probe(Probe&&) = delete;
  ~Probe() { finish(); }

  void start(const std::string& program, const ProbeJob& job) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      throw systemError("making a pipe", errno);
    }
    pipe_ = Fd(ends[0]);
    const Fd narrow(ends[1]);
    ::fcntl(pipe_.get(), F_SETFL, O_NONBLOCK);
    // Read when the program has gone: one that says more than a pipe holds must not wait for that.
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
      throw systemError("making a pipe", errno);
    }
    log_ = Fd(ends[0]);
    const Fd narrowLog(ends[1]);
    const Fd log = high(narrowLog.get());
    const Fd result = high(narrow.get());
    const Fd plugin = high(job.plugin.get());
    SpawnFileActions actions;
    actions.openNull(0, O_RDONLY);
    actions.openNull(1, O_WRONLY);
    actions.duplicate(log.get(), 2);
    actions.duplicate(result.get(), 3);
    actions.duplicate(plugin.get(), 4);
    actions.closeFrom(5);
    const SpawnAttributes attributes;
    std::string programText = program;
    std::string path = job.path;
    std::string name = job.name;
    std::string measure = job.measure ? "1" : "0";
    const std::array<char*, 5> arguments = {programText.data(), path.data(), name.data(), measure.data(), nullptr};
    pid_t pid = -1;
    const int error =
        ::posix_spawn(&pid, program.c_str(), actions.get(), attributes.get(), arguments.data(), ::environ);
    if (error != 0) {
      fail(systemError("starting " + program + " to probe " + job.path, error));
      return;
    }
    pid_ = pid;
    // Absent where somebody else in this process collects children: then the pipe alone tells.
    pidfd_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  }

  bool done() const { return done_; }
  const Fd& pipe() const { return pipe_; }
  const Fd& pidfd() const { return pidfd_; }

  // Reads what is there. After the end of the program nothing more is waited for, even if something that it left
  // behind holds the pipe.
  void read(bool ended) {
    std::array<char, 4096> buffer;
    while (pipe_) {
      const ssize_t count = ::read(pipe_.get(), buffer.data(), buffer.size());
      if (count > 0) {
        bytes_.append(buffer.data(), static_cast<std::size_t>(count));
        if (bytes_.size() > kMaxProbeBytes) {
          fail(Error(ErrorCode::kUnavailable, "answered with too much while being probed"));
          return;
        }
      } else if (count < 0 && errno == EINTR) {
        continue;
      } else if (count < 0 && errno == EAGAIN) {
        break;
      } else {
        pipe_.reset();
      }
    }
    if (!pipe_) {
      answer_ = decodeProbeResult(bytes_);
    }
    // Without an answer it is the program's end that says more.
    done_ = ended || (!pipe_ && (answer_ || !pidfd_));
    if (done_ && pipe_) {
      answer_ = decodeProbeResult(bytes_);
    }
  }

  void fail(Error error) {
    failure_ = std::move(error);
    done_ = true;
  }

  ProbeResult result(const ProbeJob& job) {
    finish();
    if (!failure_ && !answer_) {
      std::string what = "gave no proper answer";
      if (signal_ != 0) {
        what = "crashed with signal " + std::to_string(signal_);
      } else if (exitCode_ != 0) {
        what = "ended with exit code " + std::to_string(exitCode_);
      }
      fail(Error(ErrorCode::kUnavailable, what + " while being probed"));
    }
    ProbeResult result;
    if (failure_) {
      result.answered = false;
      result.info.error = backendError(
          job.name, Error(failure_->code(), failure_->message(),
                          failure_->hint().empty() ? "remove " + job.path + " if it is not needed" : failure_->hint(),
                          failure_->retryable()));
    } else {
      result = std::move(*answer_);
    }
    result.info.name = job.name;
    result.info.path = job.path;
    result.said = parseProbeLog(said());
    return result;
  }

 private:
  std::string said() {
    std::string text;
    std::array<char, 4096> buffer;
    while (log_ && text.size() < kMaxProbeLogBytes) {
      const ssize_t count = ::read(log_.get(), buffer.data(), buffer.size());
      if (count > 0) {
        text.append(buffer.data(), static_cast<std::size_t>(count));
      } else if (count == 0 || errno != EINTR) {
        break;
      }
    }
    log_.reset();
    return text;
  }
  // Ends the program and what it left in its session, and collects it.
  void finish() {
    pipe_.reset();
    if (pid_ < 0) {
      return;
    }
    if (pidfd_) {
      ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    } else {
      ::kill(pid_, SIGKILL);
    }
    siginfo_t info = {};
    int waited;
    while ((waited = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT)) < 0 && errno == EINTR) {
    }
    if (waited == 0) {
      // Not collected yet: the number still belongs to it, and so does the session.
      ::kill(-pid_, SIGKILL);
      ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG);
      (info.si_code == CLD_EXITED ? exitCode_ : signal_) = info.si_status;
    }
    pid_ = -1;
    pidfd_.reset();
  }

  pid_t pid_ = -1;
  Fd pidfd_;
  Fd pipe_;
  Fd log_;
  bool done_ = false;
  std::string bytes_;
  std::optional<ProbeResult> answer_;
  std::optional<Error> failure_;
  int exitCode_ = 0;
  int signal_ = 0;
};

}  // namespace

std::vector<ProbeResult> runProbes(const std::string& program, const std::vector<ProbeJob>& jobs,
                                   std::chrono::milliseconds timeout, int cancel) {
  std::vector<Probe> probes(jobs.size());
  const Clock::time_point deadline = Clock::now() + timeout;
  for (std::size_t index = 0; index < jobs.size(); ++index) {
    probes[index].start(program, jobs[index]);
  }
  while (true) {
    std::vector<pollfd> wanted;
    std::vector<Probe*> owners;
    for (Probe& probe : probes) {
      if (!probe.done()) {
        wanted.push_back({probe.pipe().get(), POLLIN, 0});
        wanted.push_back({probe.pidfd().get(), POLLIN, 0});  // a negative number is passed over
        owners.push_back(&probe);
      }
    }
    if (wanted.empty()) {
      break;
    }
    wanted.push_back({cancel, POLLIN, 0});
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int count = ::poll(wanted.data(), wanted.size(), static_cast<int>(std::clamp<long long>(left, 0, 600000)));
    if (count < 0 && errno != EINTR) {
      throw systemError("waiting for probes", errno);
    }
    if (count == 0 && Clock::now() >= deadline) {
      for (Probe* probe : owners) {
        probe->fail(Error(ErrorCode::kUnavailable, "did not answer within " + secondsText(timeout)));
      }
      break;
    }
    if (count > 0 && wanted.back().revents != 0) {
      throw Error(ErrorCode::kCancelled, "probing was given up");
    }
    for (std::size_t index = 0; count > 0 && index < owners.size(); ++index) {
      const bool ended = wanted[2 * index + 1].revents != 0;
      if (wanted[2 * index].revents != 0 || ended) {
        owners[index]->read(ended);
      }
    }
  }
  std::vector<ProbeResult> results;
  for (std::size_t index = 0; index < jobs.size(); ++index) {
    results.push_back(probes[index].result(jobs[index]));
  }
  return results;
}

}  // namespace vmmhost::plugin
