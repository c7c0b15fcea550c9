#include "host/cli/terminal/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

namespace vmmhost::cli {

namespace {

constexpr std::array<int, 6> kCrashSignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT};

// Signal handlers and atexit take no context: the one raw terminal of the process is here.
termios savedMode;
std::atomic<int> savedFd{-1};

// Async-signal-safe. In the background the terminal is another job's, whose shell has seen to its mode.
void restore() {
  const int fd = savedFd.exchange(-1);
  if (fd >= 0 && isForegroundTerminal(fd)) {
    ::tcsetattr(fd, TCSADRAIN, &savedMode);
  }
}

void restoreAndDie(int signal) {
  restore();
  ::raise(signal);  // SA_RESETHAND: this time with the default action
}

void enter(int fd) {
  termios raw = savedMode;
  ::cfmakeraw(&raw);
  ::tcsetattr(fd, TCSADRAIN, &raw);
}

}  // namespace

bool isForegroundTerminal(int fd) {
  if (::isatty(fd) != 1) {
    return false;
  }
  const pid_t foreground = ::tcgetpgrp(fd);
  // ENOTTY: a terminal, but not the controlling one of this session, which knows no jobs (tty_ioctl(4), TIOCGPGRP).
  return foreground == ::getpgrp() || (foreground < 0 && errno == ENOTTY);
}

std::optional<TerminalSize> terminalSize(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    return std::nullopt;
  }
  return TerminalSize{size.ws_col, size.ws_row};
}

RawTerminal::RawTerminal(int fd) : fd_(fd) {
  take();
}

bool RawTerminal::take() {
  if (!isForegroundTerminal(fd_)) {
    isRaw_ = false;  // whoever has it now gives it the mode that it wants
    return false;
  }
  if (isRaw_) {
    return true;
  }
  if (active_) {
    enter(fd_);
    isRaw_ = true;
    return true;
  }
  if (::tcgetattr(fd_, &savedMode) != 0) {
    return false;
  }
  savedFd = fd_;
  static const int registered = ::atexit(restore);
  static_cast<void>(registered);
  struct sigaction action {};
  action.sa_handler = restoreAndDie;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : kCrashSignals) {
    ::sigaction(signal, &action, nullptr);
  }
  enter(fd_);
  active_ = true;
  isRaw_ = true;
  return true;
}

RawTerminal::~RawTerminal() {
  if (active_) {
    restore();
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    for (const int signal : kCrashSignals) {
      ::sigaction(signal, &action, nullptr);
    }
  }
}

void RawTerminal::reenter() {
  isRaw_ = false;
  take();
}

}  // namespace vmmhost::cli
