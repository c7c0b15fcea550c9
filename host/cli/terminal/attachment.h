// A command attached to a VM: run and console.
#pragma once

#include <kj/async-io.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>

#include "host/cli/terminal/console_session.h"
#include "host/cli/terminal/ready.h"
#include "host/cli/terminal/terminal.h"
#include "host/client/control_client.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::cli {

// What ended the waiting of an attached command.
struct ForegroundEvent {
  enum class Kind { kEnded, kDetach, kKill, kOutputGone, kSignal };
  Kind kind = Kind::kEnded;
  int signal = 0;
};

std::string signalName(int signal);  // "SIGTERM"; a number if it has no name

// Forwards the console, and waits for whatever comes first. Belongs to the loop's thread; `io` and `client` outlive it.
class Attachment {
 public:
  struct Options {
    int outputFd = STDOUT_FILENO;
    std::uint32_t replayBytes = 0;
    std::uint32_t port = 0;
    bool isAllThatIsWanted = false;  // what cannot be shown is a failure
    bool readsInput = true;
  };
  Attachment(kj::AsyncIoContext& io, client::ControlClient& client, const Options& options)
      : io_(io), client_(client), options_(options), signals_(io) {}

  // Waits until guest code runs (or `before`, whatever it is, is done), or for a signal.
  ForegroundEvent await(kj::Promise<void> before);

  // The same; then follows the console and waits for the VM's end. The failure of `before` is the failure of this.
  ForegroundEvent follow(kj::Promise<void> before);

  // Ends the VM and takes what the console still says. A second signal meanwhile throws kCancelled; timeout(1) sends
  // one to the command and to its process group, which makes it come twice.
  void stop(schema::EndKind kind, const std::string& reason, int signal = 0);

  schema::Outcome::Reader outcome();

  // What made the console's output fail; empty: nothing did.
  std::string outputFailure() const;

  // The terminal as it was, for messages and for the end.
  void release() { terminal_.reset(); }

 private:
  kj::Promise<void> openConsole(kj::Promise<Fd> early);

  kj::Promise<void> attach(Fd stream);

  bool mayRead() { return terminal_ && terminal_->take(); }

  // The guest learns how large the terminal is, where its console can be told.
  void tellSize();

  // All that the console had to say has been written. Bounded: a VM that has ended says nothing new.
  kj::Promise<void> drained();

  kj::Promise<ForegroundEvent> nextSignal();

  kj::Promise<ForegroundEvent> signalAfter(kj::TimePoint time);

  kj::AsyncIoContext& io_;
  client::ControlClient& client_;
  Options options_;
  SignalSource signals_;
  std::optional<RawTerminal> terminal_;
  kj::Own<kj::PromiseFulfiller<ForegroundEvent>> userEvent_;
  kj::Own<ConsoleSession> session_;
  kj::Maybe<client::ControlClient::WaitResponse> outcome_;
  kj::Maybe<client::ControlClient::StopResponse> stopped_;
  kj::ForkedPromise<void> consoleDone_ = nullptr;
  bool consoleOpened_ = false;
  kj::Promise<void> events_ = nullptr;
  kj::Promise<void> resizing_ = nullptr;
};

}  // namespace vmmhost::cli
