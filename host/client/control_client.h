// A client of one VM's supervisor over its control connection.
#pragma once

#include <kj/async-io.h>
#include <kj/async.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "ipc/rpc/connection.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::client {

// Calls that a living supervisor answers at once take at most this long.
inline constexpr std::chrono::milliseconds kCallTimeout{5000};
// Ending a VM waits for its worker, its helpers and its cgroups to be gone.
inline constexpr std::chrono::milliseconds kStopTimeout{20000};

// Carries a promise out on the thread's event loop; throws Error where it fails.
template <typename T>
T await(kj::AsyncIoContext& io, kj::Promise<T> promise) {
  try {
    return promise.wait(io.waitScope);
  } catch (const kj::Exception& exception) {
    throw rpc::fromKj(exception);
  }
}

// What a supervisor told of itself.
struct Greeting {
  std::uint16_t minor = 0;  // of its control protocol
  std::optional<std::string> build;
};

// Belongs to the thread of its event loop. What the supervisor sends is bounded by rpc::Limits (256 KiB a message);
// texts in it are untrusted and must be escaped before they are shown. Every promise rejects with an Error (see
// rpc::fromKj): what the supervisor answered, kUnsupported naming a method that it does not have, kDeadlineExceeded, or
// kSupervisorDied when it is gone.
class ControlClient {
 public:
  using InfoResponse = capnp::Response<schema::Control::InfoResults>;
  using StartedResponse = capnp::Response<schema::Control::StartedResults>;
  using WaitResponse = capnp::Response<schema::Control::WaitResults>;
  using StopResponse = capnp::Response<schema::Control::StopResults>;
  using AbilitiesResponse = capnp::Response<schema::Control::AbilitiesResults>;
  using BalloonResponse = capnp::Response<schema::Control::BalloonResults>;
  using StateChange = std::function<void(schema::VmState state, std::int64_t unixMs, std::string_view detail)>;

  // `vmName` is for messages; it may be empty while the supervisor has not chosen one yet. hello() is sent at once and
  // the other calls follow it without waiting for the answer; check hello() before believing any other answer.
  ControlClient(kj::AsyncIoContext& io, Fd socket, std::string vmName);
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // Refuses (kProtocol) a supervisor of another major version, naming both builds.
  kj::Promise<void> hello(std::chrono::milliseconds limit = kCallTimeout);
  // The worker's private memory is measured for most of the limit, since it takes as long as the worker likes.
  enum class Memory { kMeasured, kLeftOut };
  kj::Promise<InfoResponse> info(std::chrono::milliseconds limit = kCallTimeout, Memory memory = Memory::kMeasured);
  kj::Promise<void> shutdown(std::chrono::milliseconds limit = kCallTimeout);
  // `signal`: for kind signalled.
  kj::Promise<StopResponse> stop(schema::EndKind kind, std::string_view reason,
                                 std::chrono::milliseconds limit = kStopTimeout, int signal = 0);
  kj::Promise<void> pause(std::chrono::milliseconds limit = kCallTimeout);
  kj::Promise<void> resume(std::chrono::milliseconds limit = kCallTimeout);
  kj::Promise<void> reset(std::chrono::milliseconds limit = kCallTimeout);
  kj::Promise<void> detach(std::chrono::milliseconds limit = kCallTimeout);
  // Without a deadline: they take as long as the VM does. The supervisor's death ends them.
  kj::Promise<WaitResponse> wait();
  kj::Promise<StartedResponse> started();
  // A non-blocking stream socket with the output of a console. Answered when the VM has its consoles.
  kj::Promise<Fd> console(std::uint32_t replayBytes, bool input, std::uint32_t port = 0);
  // How much memory the guest is asked to give up, in bytes; and what it was asked for and says it has given up.
  kj::Promise<void> setBalloon(std::uint64_t target, std::chrono::milliseconds limit = kCallTimeout);
  kj::Promise<BalloonResponse> balloon(std::chrono::milliseconds limit = kCallTimeout);
  // What the VM's worker can do, as objects. Results of theirs have an error: rpc::throwIfError.
  kj::Promise<AbilitiesResponse> abilities(std::chrono::milliseconds limit = kCallTimeout);
  // The terminal that the console is shown on has this size now. Rejected with kUnsupported where nobody cares.
  kj::Promise<void> resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows,
                                  std::chrono::milliseconds limit = kCallTimeout);
  // `change` is called in the loop's thread for every state from now on, until this client goes.
  kj::Promise<void> watch(StateChange change, std::chrono::milliseconds limit = kCallTimeout);

  // What the supervisor told of its build: printable, at most kMaxBuildBytes, and empty where it tells none. Not there
  // before hello() is answered; there as well if that fails since the supervisor speaks another major version.
  const std::optional<std::string>& supervisorBuild() const { return greeting_.build; }

  const std::string& vmName() const { return vmName_; }
  void setVmName(std::string name) { vmName_ = std::move(name); }

 private:
  template <typename Response>
  kj::Promise<Response> checked(kj::Promise<Response> promise);
  template <typename Response>
  kj::Promise<void> done(kj::Promise<Response> promise);
  template <typename Response>
  kj::Promise<Response> within(std::chrono::milliseconds limit, const char* what, kj::Promise<Response> promise);
  std::string subject() const;
  Error gone() const;                          // kSupervisorDied
  Error lacks(const std::string& what) const;  // kUnsupported: the supervisor is of a version without it
  // Fulfilled if the supervisor speaks this minor version or a later one; else kUnsupported, naming `what`.
  kj::Promise<void> since(std::uint16_t minor, const char* what);
  kj::Promise<Fd> attach(std::uint32_t replayBytes, bool input, std::uint32_t port);

  kj::AsyncIoContext& io_;
  std::string vmName_;
  rpc::Connection connection_;
  schema::Control::Client control_;
  Greeting greeting_;
  kj::ForkedPromise<void> hello_;
};

}  // namespace vmmhost::client
