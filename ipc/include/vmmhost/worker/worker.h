// The worker side of the protocol: what a backend's worker process implements, and serve(), which speaks
// schemas/worker.capnp on descriptor 3 on its behalf.
//
// Threading. Everything here happens on the thread that called serve(), which runs a KJ event loop. Other threads
// reach it through Events::sender().
//
// Errors. Any function of a Backend or Machine may throw vmmhost::Error; the host gets it as a structured error.
// Other exceptions become ErrorCode::kInternal. Promises may be rejected in the same way: see worker::fail().
#pragma once

#include <kj/async-io.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/mailbox.h"
#include "vmmhost/rings.h"
#include "vmmhost/schema/error.capnp.h"
#include "vmmhost/schema/vm.capnp.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::worker {

// The descriptors that the host attached before create. Taking one moves it out.
class Resources {
 public:
  // The file with this resource number (FileRef.resource). Throws kInvalidArgument if it was not attached.
  Fd takeFile(std::uint32_t resource);
  // A device of the launch plan; empty when it was optional and is not there.
  Fd takeDevice(const std::string& name);
  // The stream socket of a console (0 is the first); non-blocking. The host always drains it.
  Fd takeConsole(std::uint32_t index);
  // The queues of a TAP device for a network card (nics[index]), in order; none when the card is attached to nothing.
  // Opened by the host with IFF_TAP, IFF_NO_PI, IFF_VNET_HDR with a header of 12 bytes, and O_NONBLOCK; with
  // IFF_MULTI_QUEUE where there are several. The worker reads, writes and sets offloads (TUNSETOFFLOAD); under the base
  // policy "worker-system" also the size of the header (TUNSETVNETHDRSZ). All else of the device is the host's.
  std::vector<Fd> takeNic(std::uint32_t index);
  // The guest's memory of a VM whose configuration says memory.shared: a file of memory.size bytes that is sealed at
  // this size, made by the host, to be mapped shared. Empty otherwise, and from a host before 1.2. No worker can make
  // one itself.
  Fd takeMemory();
  // Shared memory for counters (vmmhost/counters.h); empty when the host offers none.
  Fd takeCounters();
  // A ring that the process was started with, see vmmhost/rings.h; no descriptor in it when there is none left.
  rings::Ring takeRing();

 private:
  friend class WorkerServer;
  std::map<std::uint32_t, Fd> files_;
  std::map<std::string, Fd> devices_;
  std::map<std::uint32_t, Fd> consoles_;
  std::map<std::uint32_t, std::map<std::uint32_t, Fd>> nics_;  // by card, by queue
  Fd counters_;
  Fd memory_;
  std::vector<rings::Ring> rings_;  // the next one is the last
};

// What the host does for a machine that asks. Lives as long as the machine.
class Services {
 public:
  virtual ~Services() = default;
  // For a machine with a vsock device: a socket, connected and non-blocking, to what listens for this VM on `port` of
  // the host. Rejected with kNotFound where nothing does, and with kResourceExhausted when more questions wait than
  // the host is asked at a time.
  virtual kj::Promise<Fd> connectVsock(std::uint32_t port) = 0;
};

// Sends events to the host, in order. Lives as long as the machine.
class Events {
 public:
  virtual ~Events() = default;
  // The last event: no guest code runs any more. `detail` is for people, at most 4 KiB. Later calls are ignored.
  virtual void ended(schema::EndCause cause, std::string detail) = 0;
  virtual void resetDone() = 0;
  virtual void guestPanicked(std::string detail) = 0;
  virtual void bootPhase(std::uint8_t value, std::uint64_t monotonicNs) = 0;
  // The host's file system, or a quota there, has no room for what the guest writes to disks[index]. The guest gets an
  // error for it and runs on. A guest can bring it about without end: to be told ever more rarely.
  virtual void diskFull(std::uint32_t /*index*/) {}
  // For other threads: posts run on the event loop's thread.
  virtual Mailbox::Sender sender() const = 0;
  virtual Services& services() = 0;
};

// A created VM. Destroying it ends it.
class Machine {
 public:
  virtual ~Machine() = default;

  // Guest code runs once the promise is fulfilled.
  virtual kj::Promise<void> start() = 0;

  // Abilities beyond that; the set must agree with the capabilities that the plugin advertises. A machine that sets
  // them itself, each an object that serves its interface of schemas/worker.capnp (see answer(), below), returns true;
  // the objects are not called after the machine has gone. So it offers what comes to the schema later, too.
  virtual bool offer(schema::Abilities::Builder /*abilities*/) { return false; }
  // Else it is asked: for each that it has it returns true from the first function and implements the rest.
  virtual bool canPause() const { return false; }
  virtual kj::Promise<void> pause() { return kj::READY_NOW; }   // fulfilled when no virtual CPU runs; idempotent
  virtual kj::Promise<void> resume() { return kj::READY_NOW; }  // idempotent
  virtual bool hasPowerButton() const { return false; }
  virtual kj::Promise<void> pressPowerButton() { return kj::READY_NOW; }
  virtual bool canReset() const { return false; }
  virtual kj::Promise<void> reset() { return kj::READY_NOW; }
  virtual bool hasBalloon() const { return false; }
  virtual kj::Promise<void> setBalloonTarget(std::uint64_t /*bytes*/) { return kj::READY_NOW; }
  virtual kj::Promise<std::uint64_t> balloonActual() { return std::uint64_t{0}; }  // bytes
  virtual bool canResizeConsoles() const { return false; }
  // The terminal that a console is shown on has this size now. What is no console of a kind with a size is passed over.
  virtual kj::Promise<void> resizeConsole(std::uint32_t, std::uint16_t /*columns*/, std::uint16_t /*rows*/) {
    return kj::READY_NOW;
  }
  virtual bool hasVsock() const { return false; }
  // A client of the host wants `port` of the guest. Its socket is connected and does not block. Fulfilled when it is
  // taken; rejected, the host closes it. Once the guest has accepted, and before any of its bytes, the machine writes
  // "OK <host port>\n" to it; it closes it if the guest does not want it.
  virtual kj::Promise<void> connectVsock(std::uint32_t, Fd) { return kj::READY_NOW; }
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Told to the host in hello.
  virtual std::vector<std::string> features() const { return {}; }

  // Called for Worker.confirm: give up what only starting up needed, e.g. install a tighter seccomp filter. The
  // process is already non-dumpable.
  virtual void confine() {}

  // Called once, after everything was attached. When the promise is fulfilled every thread has its final
  // confinement and no guest code has run. `events` outlives the machine.
  virtual kj::Promise<std::unique_ptr<Machine>> create(schema::VmConfig::Reader config, Resources& resources,
                                                       Events& events, kj::AsyncIoContext& io) = 0;
};

// A promise that is rejected with a vmmhost::Error. (KJ carries exceptions of other types as text only.)
kj::Exception toKj(const Error& error);
template <typename T = void>
kj::Promise<T> fail(const Error& error) {
  return kj::Promise<T>(toKj(error));
}

// Carries out a method of an object that a machine offers. `work` returns kj::Promise<void> or nothing, may throw
// Error, and puts what it has to say into context.getResults(); what goes wrong becomes the result's `error`.
void setError(kj::Exception&& exception, schema::Error::Builder out);
template <typename Context, typename Work>
kj::Promise<void> answer(Context context, Work work) {
  return kj::evalNow([&]() -> kj::Promise<void> {
           try {
             if constexpr (std::is_void_v<decltype(work())>) {
               work();
               return kj::READY_NOW;
             } else {
               return work();
             }
           } catch (const Error& error) {
             return fail(error);
           }
         })
      .catch_([context](kj::Exception&& exception) mutable {
        setError(kj::mv(exception), context.getResults().initError());
      });
}

struct ServeOptions {
  int rpcDescriptor = 3;
  std::string build = "vmmhost";
  // What main() was called with, if the launch plan asks for rings or for instances of epoll: the host tells of them
  // there.
  std::span<char* const> arguments;
};

// Serves the protocol until the host closes the connection, then returns 0: the caller leaves the process. Returns
// another exit code if the protocol was broken. Blocks the calling thread in its event loop. To be called before the
// process has other threads: from here on glibc's allocator has one heap for all of them, so that under a filter no
// thread's first allocation opens a file.
int serve(Backend& backend, const ServeOptions& options = {});

// Writes one log record to descriptor 2, which the host carries to its own log: one line, at most 4 KiB, control
// characters escaped. Async-signal-safe apart from formatting; never blocks (records are dropped when the pipe is
// full, and the number dropped is told with the next record). Any thread.
enum class LogLevel { kDebug, kInfo, kWarning, kError };
void log(LogLevel level, std::string_view message) noexcept;

}  // namespace vmmhost::worker
