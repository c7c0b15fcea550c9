// What is told about a VM.
#include <algorithm>

#include "host/base/build_info.h"
#include "host/vm/vm.h"
#include "vmmhost/plugin.h"

namespace vmmhost::vm {
namespace {

constexpr auto kMeasurementAge = 500 * kj::MILLISECONDS;
constexpr std::chrono::milliseconds kMostForInfo{1000};

}  // namespace

kj::Promise<std::uint64_t> Vm::measureMemory(std::chrono::milliseconds within) {
  if (ending_ || within.count() == 0) {
    return std::uint64_t{0};
  }
  return measure(std::min(within, std::max(kMostForInfo, spec_.measureMemory)));
}

kj::Promise<std::uint64_t> Vm::measure(std::chrono::milliseconds limit) {
  if (!worker_) {
    return std::uint64_t{0};
  }
  auto& timer = io_.provider->getTimer();
  if (!isMeasuring_ && measured_ && timer.now() - measured_->first < kMeasurementAge) {
    return std::uint64_t{measured_->second};
  }
  // One at a time, which all who ask wait for.
  if (!isMeasuring_) {
    isMeasuring_ = true;
    auto givenUp = kj::newPromiseAndFulfiller<std::uint64_t>();
    measurementGivenUp_ = kj::mv(givenUp.fulfiller);
    measurement_ = meter_.measure(worker_->process().pid(), originalConfig_.getMemory().getSize(), limit)
                       .exclusiveJoin(kj::mv(givenUp.promise))
                       .then([this](std::uint64_t bytes) {
                         isMeasuring_ = false;
                         measured_ = {io_.provider->getTimer().now(), bytes};
                         return bytes;
                       })
                       .fork();
  }
  return measurement_.addBranch().exclusiveJoin(
      timer.afterDelay(limit.count() * kj::MILLISECONDS).then([]() { return std::uint64_t{0}; }));
}

void Vm::describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes) {
  out.setName(originalConfig_.getName());
  out.setBackend(spec_.backend);
  out.setState(state_);
  out.setSupervisorPid(::getpid());
  out.setSupervisorBuild(kj::StringPtr(kBuild.data(), kBuild.size()));
  out.setStartedUnixMs(startedUnixMs_);
  out.setEndedUnixMs(endedUnixMs_);
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
  if (worker_ && state_ != schema::VmState::ENDED) {
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
  auto timings = out.initTimings(static_cast<unsigned>(timings_.size()));
  for (unsigned i = 0; i < timings.size(); ++i) {
    timings[i].setPhase(timings_[i].first);
    timings[i].setNs(timings_[i].second);
  }
  if (state_ == schema::VmState::ENDED) {
    writeOutcome(outcome_, out.initOutcome());
  }
}

}  // namespace vmmhost::vm
