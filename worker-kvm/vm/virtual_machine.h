// A virtual machine of memory, virtual CPUs and devices. Knows nothing of the protocol or of the event loop.
#pragma once

#include <linux/filter.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "vmmhost/counters.h"
#include "worker-kvm/arch/x86_64/entry.h"
#include "worker-kvm/boot/load.h"
#include "worker-kvm/devices/boot_timer.h"
#include "worker-kvm/devices/bus.h"
#include "worker-kvm/devices/ged.h"
#include "worker-kvm/devices/keyboard_controller.h"
#include "worker-kvm/devices/machine_control.h"
#include "worker-kvm/devices/power_port.h"
#include "worker-kvm/devices/serial.h"
#include "worker-kvm/io/event_thread.h"
#include "worker-kvm/kvm/device.h"
#include "worker-kvm/memory/guest_memory.h"
#include "worker-kvm/pci/root.h"
#include "worker-kvm/smbios/tables.h"
#include "worker-kvm/threads/control_calls.h"
#include "worker-kvm/vm/device_controls.h"
#include "worker-kvm/vm/interrupts.h"
#include "worker-kvm/vm/loader.h"
#include "worker-kvm/vm/platform.h"
#include "worker-kvm/vm/run_control.h"
#include "worker-kvm/vm/vcpu_runner.h"

namespace vmmhost::kvm::vm {

struct Parameters {
  std::uint32_t cpus = 1;
  std::uint64_t memoryBytes = 0;  // a multiple of the page size, at least 2 MiB
  Fd memoryFile;                  // of so many bytes, to be shared; none: private memory
  IrqchipMode irqchip = IrqchipMode::kSplit;
  boot::BootFiles boot;
  std::optional<smbios::Uuid> uuid;
  std::vector<DeviceMaker> devices;  // in the order of their device numbers
};

struct BootPhase {
  std::uint8_t value = 0;
  std::chrono::nanoseconds monotonic{};
};

// Made, used and destroyed by one thread, the control thread. Its descriptor wake() becomes readable when something is
// to be looked at: serial(), ended(), allParked().
class VirtualMachine final : private devices::MachineControl,
                             private devices::Serial::Peer,
                             private devices::BootTimer::Sink,
                             private devices::Doorbells {
 public:
  // Loads the boot files; needs `device` no longer afterwards. Throws Error. `counters` outlives the machine.
  VirtualMachine(const Device& device, Parameters parameters, counters::WorkerPage& counters);
  ~VirtualMachine() override;

  // Starts the threads, parked. `filterFor` gives the seccomp program of a virtual CPU's thread (empty: none), which is
  // installed before allParked() is true; `loaderFilter` is that of the thread that loads, which reads from
  // bootDescriptors() and writes to wake().
  void startThreads(const std::function<std::vector<sock_filter>(Vcpu&)>& filterFor,
                    std::vector<sock_filter> loaderFilter);
  std::vector<int> bootDescriptors() const;

  void run();
  void park();  // ask; allParked() tells when it is so
  bool allParked() const;
  // Set once a virtual CPU has ended the machine. Others may run until they were parked.
  std::optional<EndReport> ended() const { return control_.ended(); }
  // For people: where the virtual CPU of an end stood. All are parked.
  std::string describe(const EndReport& report);

  // Asks the devices to stop touching guest memory; devicesQuiet() tells when they have. All virtual CPUs are parked
  // and stay so, and only beginLoad() follows.
  void beginQuiet() { pci_.beginQuiet(); }
  bool devicesQuiet() const { return pci_.isQuiet(); }
  // Begins to read the boot files into memory anew, on a thread of its own; isLoaded() tells when that is done, and
  // only reset() follows. All virtual CPUs are parked and stay so, the devices are quiet. Throws Error.
  void beginLoad();
  bool isLoaded() const { return loader_.isDone(); }
  // Back to the boot state. Throws Error.
  void reset();

  // Asks the guest to switch off.
  void pressPowerButton() noexcept { ged_.pressPowerButton(); }
  // Timers of devices stand still from one to the other, and watchdogs of the guest's own are not to count the time
  // between. All virtual CPUs are parked. Idempotent.
  void standStill() noexcept { pci_.setRunning(false); }
  void goOn() noexcept;

  // To be called after each wake: runs what virtual CPUs wait for.
  void serveCalls() noexcept { calls_.runWaiting(); }
  std::vector<BootPhase> takeBootPhases();
  bool takeCrash() noexcept { return hasCrashed_.exchange(false); }    // MachineControl::noteCrash came
  std::vector<std::string> takeFaults() { return pci_.takeFaults(); }  // of guests' drivers, for the log

  devices::Serial& serial() noexcept { return serial_; }
  // Of all devices that were made.
  const DeviceControls& controls() const noexcept { return controls_; }
  const threads::Wake& wake() const noexcept { return wake_; }
  // Descriptors that the threads of virtual CPUs write to.
  std::vector<int> signalDescriptors() const;
  const memory::GuestMemory& memory() const noexcept { return memory_; }

 private:
  void requestEnd(devices::EndReason reason) noexcept override;
  void noteCrash() noexcept override;
  void serialNeedsAttention() noexcept override { wake_.signal(); }
  void bootPhase(std::uint8_t value, std::chrono::nanoseconds monotonic) noexcept override;
  bool attach(devices::Space space, std::uint64_t address, int event) noexcept override;
  void detach(devices::Space space, std::uint64_t address, int event) noexcept override;
  void makeDevices();
  boot::Firmware makeFirmware() const;
  void setBootState(VcpuRunner& runner, const arch::EntryState& entry);

  Parameters parameters_;
  threads::Wake wake_;
  RunControl control_;
  memory::GuestMemory memory_;
  Vm vm_;
  threads::ControlCalls calls_;
  devices::PortBus ports_;
  devices::MmioBus mmio_;
  Interrupts interrupts_;
  devices::PowerPort powerPort_;
  devices::KeyboardController keyboardController_;
  devices::Serial serial_;
  devices::Ged ged_;
  devices::BootTimer bootTimer_;
  std::unique_ptr<io::EventThread> sharedThread_;
  std::vector<kvm_cpuid_entry2> supportedCpuid_;  // while it is made
  const std::optional<memory::Range> pciWindow64_;
  pci::Root pci_;
  DeviceControls controls_;
  boot::Firmware firmware_;
  std::mutex bootPhasesMutex_;
  std::atomic<bool> hasCrashed_ = false;
  std::vector<BootPhase> bootPhases_;  // room for all that a guest can cause is reserved
  kvm_sregs initialSpecialRegisters_{};
  std::optional<kvm_lapic_state> initialLocalApic_;  // of the first virtual CPU; others differ in the number only
  std::vector<std::unique_ptr<VcpuRunner>> runners_;
  std::unique_ptr<boot::Load> load_;  // from beginLoad() to reset()
  Loader loader_;
};

}  // namespace vmmhost::kvm::vm
