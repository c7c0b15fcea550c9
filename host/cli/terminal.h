// The terminal of an attached console: raw while it is attached, and as it was before on every way out.
#pragma once

namespace vmmhost::cli {

// Puts the terminal of a descriptor into raw mode: every key goes to the guest. At most one lives at a time. While it
// does, exit() and the signals of a crash restore the terminal first; the other signals are for the owner to handle
// (see SignalSource) by destroying this.
class RawTerminal {
 public:
  // Does nothing when the descriptor is no terminal, or is one that this process must not touch because it runs in the
  // background.
  explicit RawTerminal(int fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  bool active() const { return active_; }
  // After the process was stopped and continued: the shell has changed the terminal's mode.
  void reenter();

 private:
  int fd_;
  bool active_ = false;
};

// May this process read from the terminal (is the descriptor one, and are we in its foreground)?
bool isForegroundTerminal(int fd);

}  // namespace vmmhost::cli
