// What is told about a VM.
#include <algorithm>

#include "host/base/build_info.h"
#include "host/vm/vm.h"
#include "vmmhost/plugin.h"

namespace vmmhost::vm {
namespace {

constexpr std::chrono::milliseconds kMostForInfo{1000};

}  // namespace

kj::Promise<std::uint64_t> Vm::measureMemory(std::chrono::milliseconds within) {
  if (!worker_ || life_.isEnding() || within.count() == 0) {
    return std::uint64_t{0};
  }
  return memory_.measure(worker_->process().pid(), std::min(within, std::max(kMostForInfo, spec_.measureMemory)));
}

void Vm::describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes) {
  out.setName(originalConfig_.getName());
  out.setBackend(spec_.backend);
  out.setState(life_.state());
  out.setSupervisorPid(::getpid());
  out.setSupervisorBuild(kj::StringPtr(kBuild.data(), kBuild.size()));
  out.setStartedUnixMs(life_.startedUnixMs());
  out.setEndedUnixMs(life_.endedUnixMs());
  out.setConfig(originalConfig_);
  out.setChoice(spec_.choice);
  if (vsock_) {
    out.setVsockSocket(vsock_->path());
  }
  const std::vector<const char*> abilities = abilities_.shown();
  auto abilityList = out.initAbilities(static_cast<unsigned>(abilities.size()));
  for (unsigned i = 0; i < abilityList.size(); ++i) {
    abilityList.set(i, abilities[i]);
  }
  if (worker_ && life_.state() != schema::VmState::ENDED) {
    out.setWorkerPid(worker_->process().pid());
    out.setWorkerPrivateBytes(workerPrivateBytes);
  }
  if (worker_) {
    out.setWorkerBuild(worker_->build());
    const auto& verified = worker_->process().verified();
    const std::string& fault = worker_->process().groupFault();
    auto jail = out.initJail(static_cast<unsigned>(verified.size()) + 1);
    for (unsigned i = 0; i < verified.size(); ++i) {
      jail.set(i, verified[i]);
    }
    jail.set(jail.size() - 1, fault.empty() ? "control group: memory and processes are limited"
                                            : "NOT limited by a control group: " + fault);
  }
  if (counters_) {
    const auto all = counters_->readAll();
    auto names = out.getCounters().initNames(static_cast<unsigned>(all.size()));
    auto values = out.getCounters().initValues(static_cast<unsigned>(all.size()));
    for (unsigned i = 0; i < names.size(); ++i) {
      names.set(i, kj::heapString(all[i].first.data(), all[i].first.size()));
      values.set(i, all[i].second);
    }
  }
  const Life::Timings& marked = life_.timings();
  auto timings = out.initTimings(static_cast<unsigned>(marked.size()));
  for (unsigned i = 0; i < timings.size(); ++i) {
    timings[i].setPhase(marked[i].first);
    timings[i].setNs(marked[i].second);
  }
  if (life_.state() == schema::VmState::ENDED) {
    writeOutcome(outcome_, out.initOutcome());
  }
}

}  // namespace vmmhost::vm
