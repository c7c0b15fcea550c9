#include "worker-kvm/kvm/device.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "vmmhost/error.h"

namespace vmmhost::kvm {

namespace {

// The structs with flexible arrays, as the kernel lays them out.
struct CpuidList {
  std::uint32_t count = 0;
  std::uint32_t padding = 0;
  std::array<kvm_cpuid_entry2, 256> entries{};  // KVM_MAX_CPUID_ENTRIES
};
static_assert(offsetof(CpuidList, entries) == 8);

struct MsrList {
  std::uint32_t count = 0;
  std::uint32_t padding = 0;
  std::array<kvm_msr_entry, 1> entries{};
};
static_assert(offsetof(MsrList, entries) == 8);

int request(const Fd& fd, unsigned long number, const char* name, const void* argument) {
  const int result = ::ioctl(fd.get(), number, argument);
  if (result < 0) {
    throw systemError(name, errno);
  }
  return result;
}

int requestNumber(const Fd& fd, unsigned long number, const char* name, unsigned long argument) {
  const int result = ::ioctl(fd.get(), number, argument);
  if (result < 0) {
    throw systemError(name, errno);
  }
  return result;
}

}  // namespace

Vcpu::Vcpu(Fd fd, std::size_t mapBytes) : fd_(std::move(fd)), mapBytes_(mapBytes) {
  void* mapping = ::mmap(nullptr, mapBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (mapping == MAP_FAILED) {
    throw systemError("mapping a virtual CPU's kvm_run", errno);
  }
  run_ = static_cast<kvm_run*>(mapping);
}

Vcpu::Vcpu(Vcpu&& other) noexcept
    : fd_(std::move(other.fd_)), run_(std::exchange(other.run_, nullptr)), mapBytes_(other.mapBytes_) {
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) {
    ::munmap(run_, mapBytes_);
  }
}

int Vcpu::run() noexcept {
  return ::ioctl(fd_.get(), KVM_RUN, 0UL) < 0 ? errno : 0;
}

kvm_regs Vcpu::registers() const {
  kvm_regs value{};
  request(fd_, KVM_GET_REGS, "KVM_GET_REGS", &value);
  return value;
}

void Vcpu::setRegisters(const kvm_regs& value) {
  request(fd_, KVM_SET_REGS, "KVM_SET_REGS", &value);
}

kvm_sregs Vcpu::specialRegisters() const {
  kvm_sregs value{};
  request(fd_, KVM_GET_SREGS, "KVM_GET_SREGS", &value);
  return value;
}

void Vcpu::setSpecialRegisters(const kvm_sregs& value) {
  request(fd_, KVM_SET_SREGS, "KVM_SET_SREGS", &value);
}

kvm_lapic_state Vcpu::localApic() const {
  kvm_lapic_state value{};
  request(fd_, KVM_GET_LAPIC, "KVM_GET_LAPIC", &value);
  return value;
}

void Vcpu::setLocalApic(const kvm_lapic_state& value) {
  request(fd_, KVM_SET_LAPIC, "KVM_SET_LAPIC", &value);
}

void Vcpu::setCpuid(std::span<const kvm_cpuid_entry2> entries) {
  CpuidList list;
  if (entries.size() > list.entries.size()) {
    throw Error(ErrorCode::kInternal, "KVM_SET_CPUID2: too many entries");
  }
  list.count = static_cast<std::uint32_t>(entries.size());
  std::copy(entries.begin(), entries.end(), list.entries.begin());
  request(fd_, kSetCpuid2, "KVM_SET_CPUID2", &list);
}

void Vcpu::setFpu(const kvm_fpu& value) {
  request(fd_, KVM_SET_FPU, "KVM_SET_FPU", &value);
}

void Vcpu::setDebugRegisters(const kvm_debugregs& value) {
  request(fd_, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &value);
}

void Vcpu::setEvents(const kvm_vcpu_events& value) {
  request(fd_, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &value);
}

void Vcpu::setRunState(std::uint32_t mpState) {
  const kvm_mp_state value{mpState};
  request(fd_, KVM_SET_MP_STATE, "KVM_SET_MP_STATE", &value);
}

void Vcpu::noteStandstill() noexcept {
  // EINVAL where the guest has no such clock.
  (void)::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0UL);
}

void Vcpu::setKnownMsrs(std::span<const kvm_msr_entry> entries) {
  for (const kvm_msr_entry& entry : entries) {
    // One at a time: a list stops at the first that is refused.
    const MsrList list{1, 0, {entry}};
    request(fd_, kSetMsrs, "KVM_SET_MSRS", &list);
  }
}

void Vm::setMemory(std::uint32_t slot, std::uint64_t guestAddress, std::span<std::uint8_t> host) {
  const kvm_userspace_memory_region region{slot, 0, guestAddress, host.size(),
                                           reinterpret_cast<std::uintptr_t>(host.data())};
  request(fd_, KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", &region);
}

void Vm::setReservedPages(std::uint32_t identityMapAddress, std::uint32_t taskStateAddress) {
  const std::uint64_t identityMap = identityMapAddress;
  request(fd_, KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR", &identityMap);
  requestNumber(fd_, KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", taskStateAddress);
}

void Vm::enableSplitIrqchip(std::uint32_t ioapicPins) {
  kvm_enable_cap capability{};
  capability.cap = KVM_CAP_SPLIT_IRQCHIP;
  capability.args[0] = ioapicPins;
  request(fd_, KVM_ENABLE_CAP, "KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)", &capability);
}

void Vm::createIrqchip() {
  requestNumber(fd_, KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP", 0);
}

kvm_irqchip Vm::irqchip(std::uint32_t chip) const {
  kvm_irqchip value{};
  value.chip_id = chip;
  request(fd_, KVM_GET_IRQCHIP, "KVM_GET_IRQCHIP", &value);
  return value;
}

void Vm::setIrqchip(const kvm_irqchip& value) {
  request(fd_, KVM_SET_IRQCHIP, "KVM_SET_IRQCHIP", &value);
}

void Vm::createPit() {
  kvm_pit_config config{};
  config.flags = KVM_PIT_SPEAKER_DUMMY;
  request(fd_, KVM_CREATE_PIT2, "KVM_CREATE_PIT2", &config);
}

kvm_pit_state2 Vm::pit() const {
  kvm_pit_state2 value{};
  request(fd_, KVM_GET_PIT2, "KVM_GET_PIT2", &value);
  return value;
}

void Vm::setPit(const kvm_pit_state2& value) {
  request(fd_, KVM_SET_PIT2, "KVM_SET_PIT2", &value);
}

void Vm::attachInterrupt(int eventDescriptor, std::uint32_t gsi) {
  kvm_irqfd value{};
  value.fd = static_cast<std::uint32_t>(eventDescriptor);
  value.gsi = gsi;
  request(fd_, KVM_IRQFD, "KVM_IRQFD", &value);
}

void Vm::detachInterrupt(int eventDescriptor, std::uint32_t gsi) {
  kvm_irqfd value{};
  value.fd = static_cast<std::uint32_t>(eventDescriptor);
  value.gsi = gsi;
  value.flags = KVM_IRQFD_FLAG_DEASSIGN;
  request(fd_, KVM_IRQFD, "KVM_IRQFD", &value);
}

void Vm::setRoutes(std::span<const kvm_irq_routing_entry> routes) {
  struct RouteList {
    std::uint32_t count = 0;
    std::uint32_t flags = 0;
    std::array<kvm_irq_routing_entry, kMaxRoutes> entries{};
  };
  if (routes.size() > kMaxRoutes) {
    throw Error(ErrorCode::kInternal, "KVM_SET_GSI_ROUTING: too many routes");
  }
  RouteList list;
  list.count = static_cast<std::uint32_t>(routes.size());
  std::copy(routes.begin(), routes.end(), list.entries.begin());
  request(fd_, kSetGsiRouting, "KVM_SET_GSI_ROUTING", &list);
}

namespace {

kvm_ioeventfd doorbell(std::uint64_t address, bool isPort, int eventDescriptor) {
  kvm_ioeventfd value{};
  value.flags = isPort ? static_cast<std::uint32_t>(KVM_IOEVENTFD_FLAG_PIO) : 0;
  value.addr = address;
  value.fd = eventDescriptor;
  return value;  // no length: any write (KVM_CAP_IOEVENTFD_NO_LENGTH)
}

}  // namespace

void Vm::attachDoorbell(std::uint64_t address, bool isPort, int eventDescriptor) {
  const kvm_ioeventfd value = doorbell(address, isPort, eventDescriptor);
  request(fd_, KVM_IOEVENTFD, "KVM_IOEVENTFD", &value);
}

void Vm::detachDoorbell(std::uint64_t address, bool isPort, int eventDescriptor) {
  kvm_ioeventfd value = doorbell(address, isPort, eventDescriptor);
  value.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
  request(fd_, KVM_IOEVENTFD, "KVM_IOEVENTFD", &value);
}

Vcpu Vm::createVcpu(std::uint32_t id, std::size_t mapBytes) {
  return Vcpu(Fd(requestNumber(fd_, KVM_CREATE_VCPU, "KVM_CREATE_VCPU", id)), mapBytes);
}

Device::Device(Fd fd) : fd_(std::move(fd)) {
  const int version = ::ioctl(fd_.get(), KVM_GET_API_VERSION, 0UL);
  if (version < 0) {
    throw Error(ErrorCode::kUnavailable, "/dev/kvm does not answer KVM_GET_API_VERSION: it is no KVM device");
  }
  if (version != KVM_API_VERSION) {
    throw Error(ErrorCode::kUnavailable, "/dev/kvm speaks KVM API version " + std::to_string(version) + ", not " +
                                             std::to_string(KVM_API_VERSION));
  }
}

int Device::extension(int capability) const noexcept {
  return std::max(0, ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability));
}

std::size_t Device::vcpuMapBytes() const {
  return static_cast<std::size_t>(requestNumber(fd_, KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE", 0));
}

Vm Device::createVm() const {
  return Vm(Fd(requestNumber(fd_, KVM_CREATE_VM, "KVM_CREATE_VM", 0)));
}

std::vector<kvm_cpuid_entry2> Device::supportedCpuid() const {
  CpuidList list;
  list.count = static_cast<std::uint32_t>(list.entries.size());
  if (::ioctl(fd_.get(), kGetSupportedCpuid, &list) < 0) {
    return {};
  }
  return {list.entries.begin(), list.entries.begin() + std::min<std::size_t>(list.count, list.entries.size())};
}

}  // namespace vmmhost::kvm
