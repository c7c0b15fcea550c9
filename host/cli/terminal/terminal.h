// The terminal of an attached console: raw while it is attached, and as it was before on every way out.
#pragma once

#include <optional>

namespace vmmhost::cli {

// Puts the terminal of a descriptor into raw mode: every key goes to the guest. At most one lives at a time. While it
// does, exit() and the signals of a crash restore the terminal first; the other signals are for the owner to handle
// (see SignalSource) by destroying this.
class RawTerminal {
 public:
  // Does nothing when the descriptor is no terminal, or is one that this process must not touch because it runs in the
  // background: see take().
  explicit RawTerminal(int fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  // Whether the terminal may be read now. It is raw then: from now on, if this process has come to the foreground
  // since, for the first time or again.
  bool take();
  // After the process was stopped and continued: the shell has changed the terminal's mode.
  void reenter();

 private:
  int fd_;
  bool active_ = false;  // has been raw: there is a mode to restore
  bool isRaw_ = false;   // and is, as far as is known
};

// How large the terminal of a descriptor is; nothing where it is none, or does not know.
struct TerminalSize {
  unsigned short columns = 0;
  unsigned short rows = 0;
};
std::optional<TerminalSize> terminalSize(int fd);

// May this process read from the terminal (is the descriptor one, and does this process not run in its background)? Of
// a terminal that is not the controlling one nobody runs in the background. Async-signal-safe.
bool isForegroundTerminal(int fd);

}  // namespace vmmhost::cli
