#include "host/cli/terminal/terminal.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <functional>

#include "vmmhost/fd.h"

namespace vmmhost::cli {
namespace {

// A job on a terminal of its own, which another one has from time to time, as a shell that reads its next command.
class Job {
 public:
  explicit Job(int slave) : terminal_(slave) {
    ::setsid();
    ::ioctl(terminal_, TIOCSCTTY, 0);
    ::signal(SIGTTOU, SIG_IGN);  // what is done here for the shell
    shell_ = ::fork();
    if (shell_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (true) {
        ::pause();
      }
    }
    ::setpgid(shell_, shell_);
    ::tcgetattr(terminal_, &cooked_);
  }
  ~Job() { ::kill(shell_, SIGKILL); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // A shell that has the terminal has it in its own mode.
  void toBackground() const {
    ::tcsetpgrp(terminal_, shell_);
    ::tcsetattr(terminal_, TCSANOW, &cooked_);
  }
  void toForeground() const { ::tcsetpgrp(terminal_, ::getpgrp()); }
  bool isRaw() const {
    termios mode = {};
    ::tcgetattr(terminal_, &mode);
    return (mode.c_lflag & ICANON) == 0;
  }
  int terminal() const { return terminal_; }

 private:
  int terminal_;
  pid_t shell_ = -1;
  termios cooked_ = {};
};

// Carries the steps out in a process of its own, which becomes a job; 0: each was as it should be, else the number of
// the first that was not.
int firstFaultOf(const std::function<int(Job&)>& steps) {
  int master = -1;
  int slave = -1;
  EXPECT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  const Fd masterEnd(master);
  const Fd slaveEnd(slave);
  const pid_t pid = ::fork();
  if (pid == 0) {
    int fault = 0;
    {
      Job job(slave);
      fault = steps(job);
    }
    ::_exit(fault);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  return WEXITSTATUS(status);
}

TEST(RawTerminal, inTheForeground_isRawUntilItGoes) {
  EXPECT_EQ(firstFaultOf([](Job& job) {
              {
                RawTerminal terminal(job.terminal());
                if (!job.isRaw() || !terminal.take()) {
                  return 1;
                }
              }
              return job.isRaw() ? 2 : 0;
            }),
            0);
}

TEST(RawTerminal, inTheBackground_isLeftAloneUntilItComesToTheForeground) {
  EXPECT_EQ(firstFaultOf([](Job& job) {
              job.toBackground();
              RawTerminal terminal(job.terminal());
              if (terminal.take() || job.isRaw()) {
                return 1;
              }
              job.toForeground();
              return terminal.take() && job.isRaw() ? 0 : 2;
            }),
            0);
}

// Stopped, continued with fg: a signal tells.
TEST(RawTerminal, continuedInTheForeground_isRawAtOnce) {
  EXPECT_EQ(firstFaultOf([](Job& job) {
              RawTerminal terminal(job.terminal());
              job.toBackground();
              job.toForeground();
              if (job.isRaw()) {
                return 1;
              }
              terminal.reenter();
              return job.isRaw() ? 0 : 2;
            }),
            0);
}

// Stopped, continued with bg, and brought back with fg, which shells do without a signal.
TEST(RawTerminal, thatWasInTheBackgroundMeanwhile_isRawAgain) {
  EXPECT_EQ(firstFaultOf([](Job& job) {
              {
                RawTerminal terminal(job.terminal());
                job.toBackground();
                terminal.reenter();
                if (job.isRaw() || terminal.take()) {
                  return 1;
                }
                job.toForeground();
                if (!terminal.take() || !job.isRaw()) {
                  return 2;
                }
              }
              return job.isRaw() ? 3 : 0;  // and as it was before the first time
            }),
            0);
}

}  // namespace
}  // namespace vmmhost::cli
