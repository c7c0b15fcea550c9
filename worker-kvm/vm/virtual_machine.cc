#include "worker-kvm/vm/virtual_machine.h"

#include <cstdio>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/cpuid.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/arch/x86_64/registers.h"

namespace vmmhost::kvm::vm {

namespace {

// Memory slots come before the interrupt controllers (see Interrupts).
Vm makeVm(const Device& device, memory::GuestMemory& memory) {
  Vm vm = device.createVm();
  vm.setReservedPages(arch::kIdentityMap, arch::kTaskState);
  std::uint32_t slot = 0;
  for (const auto& region : memory.regions()) {
    vm.setMemory(slot++, region.guest.start, region.host);
  }
  return vm;
}

const char* reasonName(devices::EndReason reason) {
  return reason == devices::EndReason::kPowerOff ? "the guest powered off" : "the guest asked for a reset";
}

}  // namespace

VirtualMachine::VirtualMachine(const Device& device, Parameters parameters, counters::WorkerPage& counters)
    : parameters_(std::move(parameters)),
      control_(wake_),
      memory_(arch::memoryRanges(parameters_.memoryBytes), parameters_.sharedMemory),
      vm_(makeVm(device, memory_)),
      calls_(wake_),
      interrupts_(vm_, parameters_.irqchip, mmio_, calls_),
      powerPort_(ports_, *this),
      keyboardController_(ports_, *this),
      serial_(ports_, arch::kSerialPort, *this, &interrupts_.line(arch::kSerialInterrupt)) {
  const arch::EntryState entry = boot::load(parameters_.boot, {}, memory_, true);
  const std::vector<kvm_cpuid_entry2> supported = device.supportedCpuid();
  const bool tscDeadline = device.extension(KVM_CAP_TSC_DEADLINE_TIMER) != 0;
  const std::size_t mapBytes = device.vcpuMapBytes();
  const VcpuRunner::Context context{control_, ports_, mmio_, counters};
  for (std::uint32_t index = 0; index < parameters_.cpus; ++index) {
    Vcpu vcpu = vm_.createVcpu(index, mapBytes);
    const auto cpuid = arch::guestCpuid(supported, index, parameters_.cpus, tscDeadline);
    if (!cpuid.empty()) {
      vcpu.setCpuid(cpuid);
    }
    arch::setFirmwareMsrs(vcpu);
    runners_.push_back(std::make_unique<VcpuRunner>(index, std::move(vcpu), context));
  }
  Vcpu& first = runners_.front()->vcpu();
  initialSpecialRegisters_ = first.specialRegisters();
  initialLocalApic_ = first.localApic();
  // Only the first starts here: KVM keeps the others waiting for the first one's INIT and SIPI.
  setBootState(*runners_.front(), entry);
}

VirtualMachine::~VirtualMachine() {
  control_.exit();
}

void VirtualMachine::startThreads(const std::function<std::vector<sock_filter>(Vcpu&)>& filterFor) {
  for (const auto& runner : runners_) {
    runner->startThread(filterFor(runner->vcpu()));
  }
}

void VirtualMachine::run() {
  control_.run();
}

void VirtualMachine::park() {
  control_.park();
  for (const auto& runner : runners_) {
    runner->kick();
  }
}

bool VirtualMachine::allParked() const {
  return control_.parkedCount() == runners_.size();
}

std::string VirtualMachine::describe(const EndReport& report) {
  std::string text(report.detail.data());
  if (report.cause == EndCause::kCrash || report.cause == EndCause::kTripleFault) {
    const kvm_regs registers = runners_.at(report.cpu)->vcpu().registers();
    char place[48];
    std::snprintf(place, sizeof place, ", RIP 0x%llx", static_cast<unsigned long long>(registers.rip));
    text += place;
  }
  return text;
}

void VirtualMachine::reset() {
  const arch::EntryState entry = boot::load(parameters_.boot, {}, memory_, false);
  ports_.resetDevices();
  mmio_.resetDevices();
  interrupts_.reset();
  for (const auto& runner : runners_) {
    Vcpu& vcpu = runner->vcpu();
    arch::resetHiddenState(vcpu);
    if (runner->index() == 0) {
      vcpu.setLocalApic(*initialLocalApic_);
      setBootState(*runner, entry);
      vcpu.setRunState(KVM_MP_STATE_RUNNABLE);
    } else {
      vcpu.setRunState(KVM_MP_STATE_UNINITIALIZED);
    }
  }
  control_.clearEnd();
}

std::vector<int> VirtualMachine::signalDescriptors() const {
  std::vector<int> descriptors = interrupts_.signalDescriptors();
  descriptors.push_back(wake_.descriptor());
  return descriptors;
}

void VirtualMachine::requestEnd(devices::EndReason reason) noexcept {
  EndReport report;
  report.cause = reason == devices::EndReason::kPowerOff ? EndCause::kPowerOff : EndCause::kReset;
  std::snprintf(report.detail.data(), report.detail.size(), "%s", reasonName(reason));
  control_.end(report);
}

void VirtualMachine::setBootState(VcpuRunner& runner, const arch::EntryState& entry) {
  runner.vcpu().setSpecialRegisters(arch::entrySpecialRegisters(entry, initialSpecialRegisters_));
  runner.vcpu().setRegisters(arch::entryRegisters(entry));
}

}  // namespace vmmhost::kvm::vm
