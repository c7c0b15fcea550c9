// Owners of the three kinds of KVM descriptors: /dev/kvm, a VM, a virtual CPU. Each function is one request of
// Linux's Documentation/virt/kvm/api.rst and throws an Error that names the request. Thread-safe as the kernel is: a
// virtual CPU's requests wait while KVM_RUN of that CPU is under way.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::kvm {

// Linux's header gives structs with a flexible array another size in C++ than in C (__DECLARE_FLEX_ARRAY), and with it
// other request numbers. These are the kernel's.
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kSetGsiRouting = _IOC(_IOC_WRITE, KVMIO, 0x6a, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);

// More than any machine here has; KVM bears 4096.
inline constexpr std::size_t kMaxRoutes = 1024;

class Vcpu {
 public:
  Vcpu(Fd fd, std::size_t mapBytes);
  ~Vcpu();
  Vcpu(Vcpu&& other) noexcept;
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;
  Vcpu& operator=(Vcpu&&) = delete;

  // KVM_RUN: 0, or the errno value (EINTR when a signal or immediateExit ended it).
  int run() noexcept;
  // What KVM_RUN left; only for the thread that calls run().
  kvm_run& state() noexcept { return *run_; }
  // kvm_run.immediate_exit: the next KVM_RUN carries out what is pending and returns EINTR at once. Any thread.
  void setImmediateExit(bool on) noexcept { std::atomic_ref<std::uint8_t>(run_->immediate_exit).store(on ? 1 : 0); }

  kvm_regs registers() const;
  void setRegisters(const kvm_regs& value);
  kvm_sregs specialRegisters() const;
  void setSpecialRegisters(const kvm_sregs& value);
  kvm_lapic_state localApic() const;
  void setLocalApic(const kvm_lapic_state& value);
  void setCpuid(std::span<const kvm_cpuid_entry2> entries);
  void setFpu(const kvm_fpu& value);
  void setDebugRegisters(const kvm_debugregs& value);
  void setEvents(const kvm_vcpu_events& value);
  void setRunState(std::uint32_t mpState);
  // Tells a guest with a paravirtual clock that it stood still: its watchdogs are not to complain (KVM_KVMCLOCK_CTRL).
  void noteStandstill() noexcept;
  // Writes those that this KVM knows and passes over the others.
  void setKnownMsrs(std::span<const kvm_msr_entry> entries);

  int descriptor() const noexcept { return fd_.get(); }

 private:
  Fd fd_;
  kvm_run* run_;
  std::size_t mapBytes_;
};

class Vm {
 public:
  explicit Vm(Fd fd) : fd_(std::move(fd)) {}

  // `host` stays mapped for as long as the VM lives.
  void setMemory(std::uint32_t slot, std::uint64_t guestAddress, std::span<std::uint8_t> host);
  // Where Intel processors without "unrestricted guest" keep a task state segment and a page table: 4 pages.
  void setReservedPages(std::uint32_t identityMapAddress, std::uint32_t taskStateAddress);
  void enableSplitIrqchip(std::uint32_t ioapicPins);
  void createIrqchip();
  kvm_irqchip irqchip(std::uint32_t chip) const;
  void setIrqchip(const kvm_irqchip& value);
  void createPit();
  kvm_pit_state2 pit() const;
  void setPit(const kvm_pit_state2& value);
  // A write to `eventDescriptor` is an edge on interrupt line `gsi`, or the message that it is routed to.
  void attachInterrupt(int eventDescriptor, std::uint32_t gsi);
  void detachInterrupt(int eventDescriptor, std::uint32_t gsi);
  // All routes at once; at most kMaxRoutes.
  void setRoutes(std::span<const kvm_irq_routing_entry> routes);
  // A guest's write of any size to this address of device memory is a write to `eventDescriptor`.
  void attachDoorbell(std::uint64_t address, bool isPort, int eventDescriptor);
  void detachDoorbell(std::uint64_t address, bool isPort, int eventDescriptor);
  Vcpu createVcpu(std::uint32_t id, std::size_t mapBytes);

  int descriptor() const noexcept { return fd_.get(); }

 private:
  Fd fd_;
};

class Device {
 public:
  // Takes an opened /dev/kvm. Throws kUnavailable when it is not one, or speaks another version than 12.
  explicit Device(Fd fd);

  int extension(int capability) const noexcept;  // KVM_CHECK_EXTENSION; 0 if it is not offered
  std::size_t vcpuMapBytes() const;
  Vm createVm() const;
  // Empty where KVM tells none.
  std::vector<kvm_cpuid_entry2> supportedCpuid() const;

 private:
  Fd fd_;
};

}  // namespace vmmhost::kvm
