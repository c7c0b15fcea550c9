#include "worker-kvm/vm/virtual_machine.h"

#include <asm/unistd.h>

#include <algorithm>
#include <cstdio>

#include "vmmhost/error.h"
#include "worker-kvm/acpi/tables.h"
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

// CPUID 0x80000008, EAX bits 0 to 7; processors without it have 36.
std::uint32_t physicalAddressBits(const std::vector<kvm_cpuid_entry2>& leaves) {
  const auto found =
      std::find_if(leaves.begin(), leaves.end(), [](const auto& leaf) { return leaf.function == 0x80000008; });
  return found == leaves.end() ? 36 : found->eax & 0xff;
}

EndCause causeOf(devices::EndReason reason) {
  switch (reason) {
    case devices::EndReason::kPowerOff:
      return EndCause::kPowerOff;
    case devices::EndReason::kReset:
      return EndCause::kReset;
    case devices::EndReason::kPanic:
      return EndCause::kPanic;
    case devices::EndReason::kWatchdog:
      return EndCause::kWatchdog;
  }
  return EndCause::kCrash;
}

const char* reasonName(devices::EndReason reason) {
  switch (reason) {
    case devices::EndReason::kPowerOff:
      return "the guest powered off";
    case devices::EndReason::kReset:
      return "the guest asked for a reset";
    case devices::EndReason::kPanic:
      return "the guest's kernel panicked";
    case devices::EndReason::kWatchdog:
      return "the guest did not reload its watchdog in time";
  }
  return "";
}

}  // namespace

VirtualMachine::VirtualMachine(const Device& device, Parameters parameters, counters::WorkerPage& counters)
    : parameters_(std::move(parameters)),
      control_(wake_),
      memory_(arch::memoryRanges(parameters_.memoryBytes), std::move(parameters_.memoryFile)),
      vm_(makeVm(device, memory_)),
      calls_(wake_),
      interrupts_(vm_, parameters_.irqchip, mmio_, calls_),
      powerPort_(ports_, *this),
      keyboardController_(ports_, *this),
      serial_(ports_, arch::kSerialPort, *this, &interrupts_.line(arch::kSerialInterrupt)),
      ged_(ports_, &interrupts_.line(arch::kGedInterrupt)),
      bootTimer_(ports_, *this),
      supportedCpuid_(device.supportedCpuid()),
      pciWindow64_(arch::pciWindow64(parameters_.memoryBytes, physicalAddressBits(supportedCpuid_))),
      pci_(ports_, mmio_, pciWindow64_),
      loader_(wake_) {
  bootPhases_.reserve(256);
  makeDevices();
  firmware_ = makeFirmware();
  const arch::EntryState entry = boot::load(parameters_.boot, firmware_, memory_, true);
  const bool tscDeadline = device.extension(KVM_CAP_TSC_DEADLINE_TIMER) != 0;
  const std::size_t mapBytes = device.vcpuMapBytes();
  const VcpuRunner::Context context{control_, ports_, mmio_, counters};
  for (std::uint32_t index = 0; index < parameters_.cpus; ++index) {
    Vcpu vcpu = vm_.createVcpu(index, mapBytes);
    const auto cpuid = arch::guestCpuid(supportedCpuid_, index, parameters_.cpus, tscDeadline);
    if (!cpuid.empty()) {
      vcpu.setCpuid(cpuid);
    }
    arch::setFirmwareMsrs(vcpu);
    runners_.push_back(std::make_unique<VcpuRunner>(index, std::move(vcpu), context));
  }
  supportedCpuid_ = {};
  Vcpu& first = runners_.front()->vcpu();
  initialSpecialRegisters_ = first.specialRegisters();
  initialLocalApic_ = first.localApic();
  // Only the first starts here: KVM keeps the others waiting for the first one's INIT and SIPI.
  setBootState(*runners_.front(), entry);
}

void VirtualMachine::makeDevices() {
  confine::Rules rules = {confine::callOn(__NR_write, wake_.descriptor())};  // of the shared thread
  const auto sharedThread = [this, &rules](const confine::Rules& more) -> io::EventThread& {
    if (!sharedThread_) {
      sharedThread_ = std::make_unique<io::EventThread>("devices");
    }
    confine::append(rules, more);
    return *sharedThread_;
  };
  const Platform platform{memory_, interrupts_, *this, *this, calls_, wake_, sharedThread};
  try {
    for (const DeviceMaker& make : parameters_.devices) {
      MadeDevice made = make(platform);
      pci_.add(std::move(made.function));
      controls_.add(std::move(made.controls));
    }
    if (sharedThread_) {
      for (const int descriptor : pci_.interruptDescriptors()) {
        rules.push_back(confine::callOn(__NR_write, descriptor));
      }
      sharedThread_->start(std::move(rules));
    }
  } catch (...) {
    if (sharedThread_) {
      sharedThread_->giveUp();  // devices that were made wait for it when they go
    }
    throw;
  }
}

VirtualMachine::~VirtualMachine() {
  control_.exit();
  calls_.end();
}

boot::Firmware VirtualMachine::makeFirmware() const {
  acpi::MachineDescription machine;
  machine.cpus = parameters_.cpus;
  machine.pciWindow32 = {arch::kPciWindow32Start, arch::kPciWindow32Bytes};
  machine.pciWindow64 = pciWindow64_;
  boot::Firmware firmware;
  firmware.acpi = acpi::build(machine, arch::kAcpiStart, arch::kAcpiBytes).bytes;
  firmware.smbios = smbios::build({.uuid = parameters_.uuid,
                                   .version = VMMHOST_VERSION,
                                   .cpus = parameters_.cpus,
                                   .memoryBytes = parameters_.memoryBytes},
                                  arch::kSmbiosStart, arch::kSmbiosBytes);
  return firmware;
}

void VirtualMachine::startThreads(const std::function<std::vector<sock_filter>(Vcpu&)>& filterFor,
                                  std::vector<sock_filter> loaderFilter) {
  loader_.start(std::move(loaderFilter));
  for (const auto& runner : runners_) {
    runner->startThread(filterFor(runner->vcpu()));
  }
  loader_.awaitFilter();  // meanwhile the others have started
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

std::vector<int> VirtualMachine::bootDescriptors() const {
  std::vector<int> descriptors = {parameters_.boot.kernel->descriptor()};
  if (parameters_.boot.initrd) {
    descriptors.push_back(parameters_.boot.initrd->descriptor());
  }
  return descriptors;
}

void VirtualMachine::beginLoad() {
  load_ = std::make_unique<boot::Load>(parameters_.boot, firmware_, memory_, false);
  loader_.begin(*load_);
}

void VirtualMachine::reset() {
  const auto load = std::move(load_);
  const arch::EntryState entry = load->finish();
  pci_.reset();
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
  const std::vector<int> doorbells = pci_.signalDescriptors();
  descriptors.insert(descriptors.end(), doorbells.begin(), doorbells.end());
  descriptors.push_back(wake_.descriptor());
  return descriptors;
}

void VirtualMachine::goOn() noexcept {
  pci_.setRunning(true);
  for (const auto& runner : runners_) {
    runner->vcpu().noteStandstill();
  }
}

void VirtualMachine::noteCrash() noexcept {
  hasCrashed_.store(true);
  wake_.signal();
}

void VirtualMachine::bootPhase(std::uint8_t value, std::chrono::nanoseconds monotonic) noexcept {
  {
    const std::lock_guard lock(bootPhasesMutex_);
    if (bootPhases_.size() < bootPhases_.capacity()) {  // never more between two resets
      bootPhases_.push_back({value, monotonic});
    }
  }
  wake_.signal();
}

std::vector<BootPhase> VirtualMachine::takeBootPhases() {
  const std::lock_guard lock(bootPhasesMutex_);
  std::vector<BootPhase> taken(bootPhases_);
  bootPhases_.clear();
  return taken;
}

// Both come by way of ControlCalls.
bool VirtualMachine::attach(devices::Space space, std::uint64_t address, int event) noexcept {
  try {
    vm_.attachDoorbell(address, space == devices::Space::kPorts, event);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void VirtualMachine::detach(devices::Space space, std::uint64_t address, int event) noexcept {
  try {
    vm_.detachDoorbell(address, space == devices::Space::kPorts, event);
  } catch (const Error&) {
    // It was refused when it was attached.
  }
}

void VirtualMachine::requestEnd(devices::EndReason reason) noexcept {
  EndReport report;
  report.cause = causeOf(reason);
  std::snprintf(report.detail.data(), report.detail.size(), "%s", reasonName(reason));
  control_.end(report);
}

void VirtualMachine::setBootState(VcpuRunner& runner, const arch::EntryState& entry) {
  runner.vcpu().setSpecialRegisters(arch::entrySpecialRegisters(entry, initialSpecialRegisters_));
  runner.vcpu().setRegisters(arch::entryRegisters(entry));
}

}  // namespace vmmhost::kvm::vm
