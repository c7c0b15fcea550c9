// The host library: runs virtual machines in jailed worker processes on behalf of the program that embeds it.
//
// Threading. Every function may be called from any thread. A Host runs its VMs on one private thread, with all signals
// blocked; what a guest or a worker does is handled there and never throws into the embedder. Several hosts can live in
// one process. The library installs no signal handler; it relies on SIGPIPE being ignored (its event loop sees to
// that).
//
// Errors. Functions and futures throw vmmhost::Error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost {

enum class State { kPreparing, kCreated, kRunning, kPaused, kStopping, kEnded };

// How a VM ended.
struct Ending {
  std::string kind;    // as in schemas/host.capnp EndKind, e.g. "guest", "stopped", "timeout", "workerDied"
  std::string cause;   // for kind guest: as in schemas/worker.capnp EndCause, e.g. "powerOff", "tripleFault"
  std::string detail;  // for people
  int exitCode = 125;  // what `vmmhost run` would exit with
};

struct BackendSummary {
  std::string name;
  std::string path;
  bool usable = false;
  std::string summary;  // what it is, or why it is not usable
  std::string hint;
  std::vector<std::string> capabilities;
  std::uint64_t instructionsPerSecond = 0;  // of a guest; 0: not measured
};

struct HostOptions {
  std::string pluginPath;    // folders searched first, ':'-separated; as VMMHOST_PLUGIN_PATH
  std::string installation;  // a file of the vmmhost installation; empty: around the running program
  std::string logFile;       // appended to, rotated at 1 MiB; empty: none
  // Where it is written down which control groups are whose, so that another host or any vmmhost command of this user
  // removes those of a program that was killed; made if it is missing. Empty: VMMHOST_RUNTIME_DIR, or where the command
  // has its own. VMs run without it as well: then the log says why there is none.
  std::string runtimeFolder;
};

struct VmOptions {
  std::string backend = "auto";
  std::string workingDirectory = ".";    // what relative paths of the configuration are relative to
  std::chrono::milliseconds timeout{0};  // 0: none
  std::vector<std::string> withoutJailParts;
  // Called on the host's thread at each change of state, in order, each once. Must not block.
  std::function<void(State state, const std::string& detail)> onState;
  // Where the sockets of a vsock device are, a folder of the caller's own: "vsock" is made there, for clients of the
  // guest, and "vsock_<port>" is where services listen that the guest may reach. One folder for each VM.
  std::string vsockFolder;
};

// A VM that belongs to this process: destroying the handle ends it and waits until all it held is gone.
class VMMHOST_API OwnedVm {
 public:
  virtual ~OwnedVm() = default;
  virtual State state() const = 0;
  virtual std::future<void> pause() = 0;
  virtual std::future<void> resume() = 0;
  virtual std::future<void> shutdown() = 0;  // asks the guest
  virtual std::future<void> reset() = 0;
  virtual std::future<Ending> stop() = 0;  // ends it now
  virtual std::future<Ending> wait() = 0;
  // A non-blocking stream socket: the output of the configuration's consoles[port] from at most `replayBytes` ago on;
  // input if asked for.
  virtual std::future<Fd> console(std::uint32_t replayBytes, bool input, std::uint32_t port = 0) = 0;
  // Configuration, state, counters and timings as JSON (VmInfo of schemas/host.capnp).
  virtual std::future<std::string> describe() = 0;
  // How much memory the guest is asked to give up, in bytes; and what it was asked for and says it has given up.
  // Rejected with kUnsupported, as what follows, where the backend cannot do it for this VM.
  virtual std::future<void> setBalloon(std::uint64_t bytes) = 0;
  struct Balloon {
    std::uint64_t target = 0;
    std::uint64_t actual = 0;
  };
  virtual std::future<Balloon> balloon() = 0;
  // The terminal that consoles[port] is shown on has this size now.
  virtual std::future<void> resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows) = 0;
  // A connection to a vsock port of the guest: a non-blocking stream socket. The first line that comes is
  // "OK <host port>", once the guest has accepted; it is closed if the guest does not want it.
  virtual std::future<Fd> connectVsock(std::uint32_t port) = 0;
};

class HostThread;

class VMMHOST_API Host {
 public:
  explicit Host(HostOptions options = {});
  ~Host();  // ends every VM that is left
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // Looks at the backends that there are, in programs of their own. Blocks up to 5 s for a backend that hangs.
  std::vector<BackendSummary> backends(bool measure);

  // Starts a VM from a JSON configuration (the shape of schemas/vm.capnp). Fulfilled when guest code runs.
  std::future<std::unique_ptr<OwnedVm>> start(const std::string& configJson, VmOptions options = {});

 private:
  std::shared_ptr<HostThread> thread_;
};

}  // namespace vmmhost
