#include "host/vm/worker_process.h"

#include <utility>

#include "host/base/build_info.h"
#include "host/base/text.h"
#include "ipc/jail/spawn/libraries.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::vm {
namespace {

std::string describePolicy(const plugin::LaunchPlan& plan) {
  if (plan.hasOldPolicy) {
    return plan.seccompPolicy.describe() +
           ", OLD: as for plugins built for version 1.1 of the interface, whose workers also make "
           "files of memory and instances of epoll that no limit counts";
  }
  return plan.seccompPolicy.describe() + (plan.epolls > 0
                                              ? ", with " + std::to_string(plan.epolls) + " instances of epoll"
                                              : ", making instances of epoll with few descriptors");
}

const char* nameOf(jailed::Phase phase) {
  switch (phase) {
    case jailed::Phase::kExecuted:
      return "worker-exec";
    case jailed::Phase::kGreeted:
      return "worker-hello";
    case jailed::Phase::kVerified:
      return "verified";
    case jailed::Phase::kConfined:
      return "confined";
  }
  return "";
}

void planRoot(const plugin::LaunchPlan& plan, spawn::Jail& jail) {
  for (const auto& bind : plan.binds) {
    jail.binds.push_back({.source = bind.source, .target = bind.target, .executable = true});
  }
  if (plan.root != plugin::LaunchPlan::Root::kSystem) {
    return;
  }
  if (plan.seccompPolicy.has(seccomp::grant::kPrograms)) {
    jail.root = spawn::Jail::Root::kSystem;
    return;
  }
  // What its executable is made of, and no programs: see addExecutable() of ipc/jail/seccomp.
  const spawn::Libraries libraries = spawn::librariesOf(plan.worker.get());
  std::vector<std::string> targets;
  for (const auto& bind : plan.binds) {
    targets.push_back(bind.target);
  }
  for (const std::string& file : spawn::filesBesides(targets, libraries.files)) {
    jail.binds.push_back({.source = file, .target = file, .executable = true});
  }
  jail.root = spawn::Jail::Root::kBinds;
  jail.loader = plan.seccompPolicy.has(seccomp::grant::kLoader) ? libraries.loader : std::string();
}

jailed::Plan planOf(WorkerSpec spec) {
  jailed::Plan plan;
  plan.name = "worker";
  plan.declaredBy = "its backend declared";
  plan.unconfinedHint = "this is a fault of the backend or of this system; nothing of the VM was sent to the worker";
  plan.policy = describePolicy(spec.plan);
  plan.explainsForbiddenCalls = spec.explainsJail;
  plan.forbiddenCallHint =
      "`vmmhost run --explain-jail ...` tells the call, its arguments and the grant that would allow it";
  planRoot(spec.plan, plan.jail);
  plan.jail.proc = spec.plan.proc;
  plan.jail.dev = spec.plan.dev;
  plan.jail.tmp = spec.plan.tmp;
  plan.jail.seccompPolicy = spec.plan.seccompPolicy;
  plan.jail.makesMemoryFiles = spec.plan.hasOldPolicy;
  plan.jail.makesEpolls = spec.plan.hasOldPolicy || spec.plan.epolls == 0;
  plan.jail.uid = spec.uid;
  plan.jail.gid = spec.gid;
  plan.jail.readable = std::move(spec.readable);
  plan.jail.rlimits = std::move(spec.rlimits);
  plan.jail.without = std::move(spec.without);
  plan.jail.maxDescriptors = spec.maxDescriptors;
  plan.jail.neededDescriptors = static_cast<int>(spec.plan.maxDescriptors);
  plan.executable = std::move(spec.plan.worker);
  plan.argv = std::move(spec.plan.argv);
  plan.rings = spec.plan.rings;
  plan.epolls = spec.plan.epolls;
  plan.group = std::move(spec.group);
  plan.deadline = spec.plan.helloTimeout;
  plan.tell = [mark = std::move(spec.mark)](jailed::Phase phase) { mark(nameOf(phase)); };
  return plan;
}

}  // namespace

WorkerProcess::WorkerProcess(kj::AsyncIoContext& io, WorkerSpec spec, Log& log)
    : process_(io, planOf(std::move(spec)), log) {
}

kj::Promise<void> WorkerProcess::handshake() {
  worker_ = process_.connect(rpc::Limits()).bootstrap<schema::Worker>();
  auto request = worker_.helloRequest();
  auto host = request.initHost();
  host.setProtocolMajor(schema::PROTOCOL_MAJOR);
  host.setProtocolMinor(schema::PROTOCOL_MINOR);
  host.setBuild(kj::StringPtr(kBuild.data(), kBuild.size()));
  // Sent before the worker runs: it waits in the socket, and saves a turn.
  auto greeted = request.send().then(rpc::guarded([this](auto&& response) {
    rpc::throwIfError(response);
    const auto worker = response.getWorker();
    if (worker.getProtocolMajor() != schema::PROTOCOL_MAJOR) {
      throw Error(ErrorCode::kProtocol,
                  "the worker speaks protocol " + std::to_string(worker.getProtocolMajor()) + ", this host " +
                      std::to_string(schema::PROTOCOL_MAJOR),
                  "install a backend of the same major version");
    }
    protocolMinor_ = worker.getProtocolMinor();
    const auto build = worker.getBuild();
    build_ = printable({build.begin(), build.size()}, kMaxBuildBytes);
  }));
  return process_.confine(kj::mv(greeted), [this]() {
    return worker_.confirmRequest().send().then(rpc::guarded([](auto&& response) { rpc::throwIfError(response); }));
  });
}

}  // namespace vmmhost::vm
