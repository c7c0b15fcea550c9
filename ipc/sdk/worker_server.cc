// The worker's side of schemas/worker.capnp.
#include <sys/prctl.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "ipc/rpc/answer.h"
#include "ipc/rpc/connection.h"
#include "ipc/sdk/by_functions.h"
#include "ipc/sdk/event_sender.h"
#include "ipc/sdk/heap.h"
#include "ipc/sdk/host_services.h"
#include "vmmhost/epolls.h"
#include "vmmhost/worker/worker.h"

namespace vmmhost::worker {
namespace {

constexpr std::size_t kMaxResources = 128;

// A machine with what it reports to, shared by the capabilities that reach it.
struct Created {
  Created(schema::EventSink::Client sink, std::optional<schema::VsockHost::Client> vsock, kj::UnixEventPort& port)
      : services(std::move(vsock)), events(kj::mv(sink), port, services) {}
  HostServices services;
  EventSender events;
  std::unique_ptr<Machine> machine;
};
using CreatedPtr = std::shared_ptr<Created>;

class VmServer final : public schema::Vm::Server {
 public:
  explicit VmServer(CreatedPtr created) : created_(std::move(created)) {}
  kj::Promise<void> start(StartContext context) override {
    return rpc::answer(context, [this]() {
      if (std::exchange(started_, true)) {
        throw Error(ErrorCode::kFailedPrecondition, "the VM was started before");
      }
      return created_->machine->start();
    });
  }

 private:
  CreatedPtr created_;
  bool started_ = false;
};

}  // namespace

class WorkerServer final : public schema::Worker::Server {
 public:
  WorkerServer(Backend& backend, const ServeOptions& options, kj::AsyncIoContext& io)
      : backend_(backend), options_(options), io_(io) {
    resources_.rings_ = rings::takeInherited(options.arguments);
  }

  kj::Promise<void> hello(HelloContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      advance(State::kNew, State::kGreeted, "hello");
      const auto host = context.getParams().getHost();
      if (host.getProtocolMajor() != schema::PROTOCOL_MAJOR) {
        throw Error(ErrorCode::kProtocol,
                    "the host speaks worker protocol " + std::to_string(host.getProtocolMajor()) + ", this worker " +
                        std::to_string(schema::PROTOCOL_MAJOR),
                    "install a worker and a host of the same major version");
      }
      auto out = context.getResults().initWorker();
      out.setProtocolMajor(schema::PROTOCOL_MAJOR);
      out.setProtocolMinor(schema::PROTOCOL_MINOR);
      out.setBuild(options_.build);
      const auto features = backend_.features();
      auto list = out.initFeatures(static_cast<unsigned>(features.size()));
      for (unsigned i = 0; i < list.size(); ++i) {
        list.set(i, features[i]);
      }
    });
  }

  kj::Promise<void> confirm(ConfirmContext context) override {
    return rpc::answer(context, [this]() {
      advance(State::kGreeted, State::kConfined, "confirm");
      if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        throw systemError("becoming non-dumpable", errno);
      }
      backend_.confine();
    });
  }

  kj::Promise<void> attach(AttachContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      require(State::kConfined, "attach");
      if (++attached_ > kMaxResources) {
        throw Error(ErrorCode::kResourceExhausted, "too many attached descriptors");
      }
      auto params = context.getParams();
      return rpc::receiveDescriptor(params.getDescriptor()).then(rpc::guarded([this, context](Fd fd) mutable {
        place(context.getParams().getResource(), std::move(fd));
      }));
    });
  }

  kj::Promise<void> create(CreateContext context) override {
    return rpc::answer(context, [this, context]() mutable {
      advance(State::kConfined, State::kCreated, "create");
      auto params = context.getParams();
      std::optional<schema::VsockHost::Client> vsock;
      if (params.hasVsock()) {
        vsock = params.getVsock();
      }
      auto created = std::make_shared<Created>(params.getEvents(), std::move(vsock), io_.unixEventPort);
      return backend_.create(params.getConfig(), resources_, created->events, io_)
          .then([this, context, created](std::unique_ptr<Machine> machine) mutable {
            created->machine = std::move(machine);
            auto results = context.getResults();
            auto abilities = results.initAbilities();
            if (created->machine->offer(abilities)) {
              created_ = created;  // its own objects do not keep it
            } else {
              offerByFunctions(std::shared_ptr<Machine>(created, created->machine.get()), abilities);
            }
            results.setVm(kj::heap<VmServer>(created));
          });
    });
  }

 private:
  enum class State { kNew, kGreeted, kConfined, kCreated };

  void require(State state, const char* call) const {
    if (state_ != state) {
      throw Error(ErrorCode::kProtocol, std::string(call) + " came out of order");
    }
  }
  void advance(State from, State to, const char* call) {
    require(from, call);
    state_ = to;
  }

  void place(schema::Resource::Reader resource, Fd fd) {
    switch (resource.which()) {
      case schema::Resource::FILE:
        resources_.files_[resource.getFile()] = std::move(fd);
        return;
      case schema::Resource::DEVICE:
        resources_.devices_[resource.getDevice()] = std::move(fd);
        return;
      case schema::Resource::CONSOLE:
        resources_.consoles_[resource.getConsole()] = std::move(fd);
        return;
      case schema::Resource::NIC:
        resources_.nics_[resource.getNic().getIndex()][resource.getNic().getQueue()] = std::move(fd);
        return;
      case schema::Resource::MEMORY:
        resources_.memory_ = std::move(fd);
        return;
      case schema::Resource::COUNTERS:
        resources_.counters_ = std::move(fd);
        return;
    }
    throw Error(ErrorCode::kUnsupported, "a kind of resource that this worker does not know");
  }

  Backend& backend_;
  const ServeOptions& options_;
  kj::AsyncIoContext& io_;
  Resources resources_;
  State state_ = State::kNew;
  std::size_t attached_ = 0;
  CreatedPtr created_;  // null unless its machine offers objects of its own
};

void setError(kj::Exception&& exception, schema::Error::Builder out) {
  rpc::writeError(rpc::fromKj(exception), out);
}

kj::Exception toKj(const Error& error) {
  return rpc::toKj(error);
}

int serve(Backend& backend, const ServeOptions& options) {
  shareOneHeap();
  const bool isBounded = epolls::takeInherited(options.arguments);
  auto io = kj::setupAsyncIo();
  rpc::Limits limits;
  limits.acceptDescriptors = true;
  limits.duplicatesDescriptors = !isBounded;  // the policy that lets make no epoll instances lets duplicate none
  rpc::Connection connection(io, Fd(options.rpcDescriptor), rpc::Side::kServer, limits,
                             kj::heap<WorkerServer>(backend, options, io));
  connection.onDisconnect().wait(io.waitScope);
  if (!connection.violation().empty()) {
    log(LogLevel::kError, "the host sent " + connection.violation());
    return 1;
  }
  return 0;
}

}  // namespace vmmhost::worker
