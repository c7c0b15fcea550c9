// The interrupt controllers of a machine, and everything that can be raised there.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "worker-kvm/devices/io_apic.h"
#include "worker-kvm/devices/serial.h"
#include "worker-kvm/devices/signals.h"
#include "worker-kvm/kvm/device.h"
#include "worker-kvm/threads/control_calls.h"
#include "worker-kvm/threads/wake.h"

namespace vmmhost::kvm::vm {

// kSplit: the local APICs are in the kernel, and the I/O APIC is registers that become routes of the kernel: no
// interrupt passes through this process. kFull: PIC, I/O APIC and PIT in the kernel too. Measured on an emulating KVM:
// making and ending a VM takes 1.7 ms with the first and 16 to 21 ms with the second, nearly all of it for taking the
// kernel's devices off its buses again.
enum class IrqchipMode : std::uint8_t { kSplit, kFull };

class Interrupts final : public devices::MessageSource {
 public:
  // Before virtual CPUs and after memory (a memory slot waits for what the irqchip has queued: 5 ms). Requests to KVM
  // are made by way of `calls`.
  Interrupts(Vm& vm, IrqchipMode mode, devices::MmioBus& bus, threads::ControlCalls& calls);
  ~Interrupts() override;

  // The line at this pin of the I/O APIC; the same one each time.
  devices::InterruptLine& line(std::uint32_t pin);
  std::unique_ptr<devices::MessageVector> makeVector() override;

  // What lines write to, for filters. Vectors belong to their devices.
  std::vector<int> signalDescriptors() const;
  // The controllers as they were at first. Lines keep nothing; vectors are their devices' to reset.
  void reset();

 private:
  class EventLine;
  class Vector;

  void setRoute(std::uint32_t gsi, std::uint64_t address, std::uint32_t data);
  void removeRoute(std::uint32_t gsi);
  void applyRoutes();

  Vm& vm_;
  threads::ControlCalls& calls_;
  std::map<std::uint32_t, kvm_irq_routing_entry> messages_;  // by GSI
  std::vector<kvm_irq_routing_entry> pins_;                  // of controllers in the kernel
  std::uint32_t nextGsi_;
  std::map<std::uint32_t, std::unique_ptr<EventLine>> lines_;
  std::unique_ptr<devices::IoApic> ioApic_;
  std::vector<kvm_irqchip> initialChips_;
  kvm_pit_state2 initialPit_{};
};

}  // namespace vmmhost::kvm::vm
