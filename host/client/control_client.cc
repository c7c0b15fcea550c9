#include "host/client/control_client.h"

#include <capnp/schema.h>

#include <utility>

#include "host/base/build_info.h"
#include "host/base/text.h"

namespace vmmhost::client {

namespace {

rpc::Limits limits() {
  rpc::Limits limits;
  limits.acceptDescriptors = true;  // the console's socket
  return limits;
}

capnp::Text::Reader text(std::string& value) {
  return {value.c_str(), value.size()};
}

class StateSinkServer final : public schema::StateSink::Server {
 public:
  explicit StateSinkServer(ControlClient::StateChange change) : change_(std::move(change)) {}

  kj::Promise<void> changed(ChangedContext context) override {
    const auto params = context.getParams();
    const auto detail = params.getDetail();
    change_(params.getState(), params.getUnixMs(), {detail.begin(), detail.size()});
    return kj::READY_NOW;
  }

 private:
  ControlClient::StateChange change_;
};

// The method that has these results: "pause" of "host.capnp:Control.pause$Results".
std::string methodOf(capnp::Schema results) {
  const std::string_view name(results.getShortDisplayName().cStr());
  const std::size_t dot = name.rfind('.');
  return std::string(name.substr(dot + 1, name.rfind('$') - dot - 1));
}

constexpr std::uint16_t kFurtherConsoles = 1;  // the minor version that knows of them

// Fills in `greeting` once the promise is fulfilled.
kj::Promise<void> sayHello(schema::Control::Client& control, const std::string& subject, Greeting& greeting) {
  auto request = control.helloRequest();
  request.setClientMajor(schema::CONTROL_MAJOR);
  request.setClientMinor(schema::CONTROL_MINOR);
  std::string build(kBuild);
  request.setBuild(text(build));
  return request.send().then(
      rpc::guarded([subject, &greeting](capnp::Response<schema::Control::HelloResults>&& response) {
        greeting.build = printable({response.getBuild().begin(), response.getBuild().size()}, kMaxBuildBytes);
        if (!response.hasError() && response.getMajor() == schema::CONTROL_MAJOR) {
          greeting.minor = response.getMinor();
          return;
        }
        if (response.hasError() && response.getMajor() == schema::CONTROL_MAJOR) {
          throw rpc::readError(response.getError());
        }
        throw Error(ErrorCode::kProtocol,
                    subject + " speaks version " + std::to_string(response.getMajor()) + " of the control protocol (" +
                        *greeting.build + "), this command speaks version " + std::to_string(schema::CONTROL_MAJOR) +
                        " (" + std::string(kBuild) + ")",
                    "use the vmmhost command that started the VM");
      }));
}

}  // namespace

ControlClient::ControlClient(kj::AsyncIoContext& io, Fd socket, std::string vmName)
    : io_(io),
      vmName_(std::move(vmName)),
      connection_(io, std::move(socket), rpc::Side::kClient, limits()),
      control_(connection_.bootstrap<schema::Control>()),
      hello_(sayHello(control_, subject(), greeting_).fork()) {
}

ControlClient::~ControlClient() = default;

std::string ControlClient::subject() const {
  return vmName_.empty() ? "the supervisor" : "the supervisor of VM " + vmName_;
}

Error ControlClient::gone() const {
  return Error(ErrorCode::kSupervisorDied, subject() + " is gone");
}

Error ControlClient::lacks(const std::string& what) const {
  return Error(ErrorCode::kUnsupported, subject() + " is of a version without " + what,
               "start the VM anew with this version");
}

// The answer's own error, a method that an older supervisor does not have, and the end of the connection in words that
// mean something to a user.
template <typename Response>
kj::Promise<Response> ControlClient::checked(kj::Promise<Response> promise) {
  return promise
      .catch_([this](kj::Exception&& exception) -> kj::Promise<Response> {
        if (!connection_.violation().empty()) {
          return rpc::fail<Response>(
              Error(ErrorCode::kProtocol, subject() + " broke the protocol: " + connection_.violation()));
        }
        if (exception.getType() == kj::Exception::Type::DISCONNECTED) {
          return rpc::fail<Response>(gone());
        }
        if (exception.getType() == kj::Exception::Type::UNIMPLEMENTED) {
          return rpc::fail<Response>(lacks(methodOf(capnp::Schema::from<typename Response::Reads>())));
        }
        return kj::mv(exception);
      })
      .then(rpc::guarded([](Response&& response) -> Response {
        rpc::throwIfError(response);
        return kj::mv(response);
      }));
}

template <typename Response>
kj::Promise<void> ControlClient::done(kj::Promise<Response> promise) {
  return promise.then([](Response&&) {});
}

template <typename Response>
kj::Promise<Response> ControlClient::within(std::chrono::milliseconds limit, const char* what,
                                            kj::Promise<Response> promise) {
  return rpc::withDeadline(io_.provider->getTimer(), limit, std::string(what) + " by " + subject(), kj::mv(promise));
}

kj::Promise<void> ControlClient::hello(std::chrono::milliseconds limit) {
  auto answered = hello_.addBranch().catch_([this](kj::Exception&& exception) -> kj::Promise<void> {
    if (exception.getType() == kj::Exception::Type::DISCONNECTED) {
      return rpc::fail(gone());
    }
    return kj::mv(exception);
  });
  return within(limit, "the greeting", kj::mv(answered));
}

kj::Promise<ControlClient::InfoResponse> ControlClient::info(std::chrono::milliseconds limit, Memory memory) {
  auto request = control_.infoRequest();
  request.setMemoryWithinMs(memory == Memory::kLeftOut ? 0 : static_cast<std::uint32_t>(limit.count() / 10 * 7));
  return within(limit, "the answer about its state", checked<InfoResponse>(request.send()));
}

kj::Promise<void> ControlClient::shutdown(std::chrono::milliseconds limit) {
  return done(within(limit, "asking the guest to power off",
                     checked<capnp::Response<schema::Control::ShutdownResults>>(control_.shutdownRequest().send())));
}

kj::Promise<ControlClient::StopResponse> ControlClient::stop(schema::EndKind kind, std::string_view reason,
                                                             std::chrono::milliseconds limit, int signal) {
  auto request = control_.stopRequest();
  std::string owned(reason);
  request.setKind(kind);
  request.setReason(text(owned));
  request.setSignal(signal);
  return within(limit, "ending the VM", checked<StopResponse>(request.send()));
}

kj::Promise<void> ControlClient::pause(std::chrono::milliseconds limit) {
  return done(within(limit, "pausing the VM",
                     checked<capnp::Response<schema::Control::PauseResults>>(control_.pauseRequest().send())));
}

kj::Promise<void> ControlClient::resume(std::chrono::milliseconds limit) {
  return done(within(limit, "resuming the VM",
                     checked<capnp::Response<schema::Control::ResumeResults>>(control_.resumeRequest().send())));
}

kj::Promise<void> ControlClient::reset(std::chrono::milliseconds limit) {
  return done(within(limit, "resetting the VM",
                     checked<capnp::Response<schema::Control::ResetResults>>(control_.resetRequest().send())));
}

kj::Promise<void> ControlClient::detach(std::chrono::milliseconds limit) {
  return done(within(limit, "detaching",
                     checked<capnp::Response<schema::Control::DetachResults>>(control_.detachRequest().send())));
}

kj::Promise<ControlClient::WaitResponse> ControlClient::wait() {
  return checked<WaitResponse>(control_.waitRequest().send());
}

kj::Promise<ControlClient::StartedResponse> ControlClient::started() {
  return checked<StartedResponse>(control_.startedRequest().send());
}

kj::Promise<Fd> ControlClient::console(std::uint32_t replayBytes, bool input, std::uint32_t port) {
  if (port != 0) {
    // One that does not know of ports would show the first console.
    return since(kFurtherConsoles, "further consoles").then([this, replayBytes, input, port]() {
      return attach(replayBytes, input, port);
    });
  }
  return attach(replayBytes, input, port);
}

kj::Promise<void> ControlClient::since(std::uint16_t minor, const char* what) {
  return hello_.addBranch().then(rpc::guarded([this, minor, what]() {
    if (greeting_.minor < minor) {
      throw lacks(what);
    }
  }));
}

kj::Promise<Fd> ControlClient::attach(std::uint32_t replayBytes, bool input, std::uint32_t port) {
  using Response = capnp::Response<schema::Control::ConsoleResults>;
  auto request = control_.consoleRequest();
  request.setReplayBytes(replayBytes);
  request.setInput(input);
  request.setPort(port);
  return checked<Response>(request.send()).then([](Response&& response) {
    auto stream = response.getStream();
    return rpc::receiveDescriptor(kj::mv(stream)).attach(kj::mv(response));
  });
}

kj::Promise<void> ControlClient::setBalloon(std::uint64_t target, std::chrono::milliseconds limit) {
  auto request = control_.setBalloonRequest();
  request.setTarget(target);
  return done(within(limit, "setting the balloon",
                     checked<capnp::Response<schema::Control::SetBalloonResults>>(request.send())));
}

kj::Promise<ControlClient::BalloonResponse> ControlClient::balloon(std::chrono::milliseconds limit) {
  return within(limit, "the answer about the balloon", checked<BalloonResponse>(control_.balloonRequest().send()));
}

kj::Promise<ControlClient::AbilitiesResponse> ControlClient::abilities(std::chrono::milliseconds limit) {
  return within(limit, "the answer about its abilities",
                checked<AbilitiesResponse>(control_.abilitiesRequest().send()));
}

kj::Promise<void> ControlClient::resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows,
                                               std::chrono::milliseconds limit) {
  auto request = control_.resizeConsoleRequest();
  request.setPort(port);
  request.setColumns(columns);
  request.setRows(rows);
  return done(within(limit, "resizing a console",
                     checked<capnp::Response<schema::Control::ResizeConsoleResults>>(request.send())));
}

kj::Promise<void> ControlClient::watch(StateChange change, std::chrono::milliseconds limit) {
  auto request = control_.watchRequest();
  request.setSink(kj::heap<StateSinkServer>(std::move(change)));
  return done(within(limit, "the answer to a watcher",
                     checked<capnp::Response<schema::Control::WatchResults>>(request.send())));
}

}  // namespace vmmhost::client
