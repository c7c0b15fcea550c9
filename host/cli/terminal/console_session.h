// Joins standard input and output with the console of a VM.
#pragma once

#include <kj/async-io.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "host/cli/terminal/ready.h"
#include "vmmhost/fd.h"

namespace vmmhost::cli {

// What the user, or the world around the command, wants.
struct SessionEvent {
  enum class Kind { kDetach, kKill, kOutputGone };
  Kind kind = Kind::kDetach;
};

// Output goes to `outputFd` unchanged until the guest's side closes. Input from a terminal goes to the guest key by
// key, ^] opens a menu on standard error; other input is forwarded until its end, which does not end anything.
class ConsoleSession {
 public:
  struct Options {
    int outputFd = 1;
    bool readInput = true;
    bool menu = false;  // input is a terminal
    // Asked before each read of a terminal: it is left alone as long as this process runs in the background. Also
    // before each write, since a job that comes to the foreground is not told.
    std::function<bool()> mayRead;
  };
  ConsoleSession(kj::AsyncIoContext& io, Fd stream, Options options);
  ConsoleSession(const ConsoleSession&) = delete;
  ConsoleSession& operator=(const ConsoleSession&) = delete;

  // Fulfilled when the console has said everything (or when its output can no longer be written). Once.
  kj::Promise<void> pumpOutput();
  // Reads input; fulfilled with what the menu was told, or when the output is gone. Once.
  kj::Promise<SessionEvent> events();
  // The errno value of the write that failed; 0: none did.
  int outputError() const { return outputError_; }

 private:
  kj::Promise<void> writeOut();
  kj::Promise<void> pumpInput();
  kj::Promise<void> writeIn();
  void takeKeys(const char* bytes, std::size_t count);
  void menuKey(char key);
  void event(SessionEvent::Kind kind);

  Fd stream_;
  Options options_;
  kj::UnixEventPort::FdObserver streamReady_;
  ReadyFd output_;
  kj::Maybe<kj::Own<ReadyFd>> input_;
  bool menuOpen_ = false;
  int outputError_ = 0;
  std::vector<char> outBuffer_;  // from the guest
  std::size_t outBegin_ = 0, outEnd_ = 0;
  std::vector<char> inBuffer_;  // to the guest
  std::size_t inBegin_ = 0;
  kj::PromiseFulfillerPair<SessionEvent> events_;
};

}  // namespace vmmhost::cli
