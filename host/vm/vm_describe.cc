// What is told about a VM.
#include "host/vm/vm.h"
#include "vmmhost/plugin.h"

namespace vmmhost::vm {
namespace {

constexpr auto kMeasurementAge = 500 * kj::MILLISECONDS;

}  // namespace

void Vm::describe(schema::VmInfo::Builder out, bool measureMemory) {
  out.setName(originalConfig_.getName());
  out.setBackend(spec_.backend);
  out.setState(state_);
  out.setSupervisorPid(::getpid());
  out.setStartedUnixMs(startedUnixMs_);
  out.setEndedUnixMs(endedUnixMs_);
  out.setConfig(originalConfig_);
  out.setChoice(spec_.choice);
  std::vector<const char*> abilities;
  if (pausable_ != nullptr) {
    abilities.push_back("pause");
  }
  if (powerButton_ != nullptr) {
    abilities.push_back("power-button");
  }
  if (resettable_ != nullptr) {
    abilities.push_back("reset");
  }
  if (balloon_ != nullptr) {
    abilities.push_back(VMMHOST_CAP_BALLOON);
  }
  if (consoleSize_ != nullptr) {
    abilities.push_back("console-size");
  }
  if (vsock_) {
    abilities.push_back("vsock");
    out.setVsockSocket(vsock_->path());
  }
  auto abilityList = out.initAbilities(static_cast<unsigned>(abilities.size()));
  for (unsigned i = 0; i < abilityList.size(); ++i) {
    abilityList.set(i, abilities[i]);
  }
  if (worker_ && state_ != schema::VmState::ENDED) {
    out.setWorkerPid(worker_->pid());
    if (measureMemory) {
      // Going through a whole address space takes a while: not as often as anybody likes to ask.
      const kj::TimePoint now = io_.provider->getTimer().now();
      if (!measured_ || now - measured_->first >= kMeasurementAge) {
        measured_ = {now, workerPrivateBytes()};
      }
      out.setWorkerPrivateBytes(measured_->second);
    }
  }
  if (worker_) {
    const auto& verified = worker_->verified();
    auto jail = out.initJail(static_cast<unsigned>(verified.size()) + 1);
    for (unsigned i = 0; i < verified.size(); ++i) {
      jail.set(i, verified[i]);
    }
    jail.set(jail.size() - 1, cgroup_.why().empty() ? "control group: memory and processes are limited"
                                                    : "NOT limited by a control group: " + cgroup_.why());
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
