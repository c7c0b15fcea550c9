#include "worker-kvm/vm/interrupts.h"

#include <poll.h>
#include <unistd.h>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::vm {

namespace {

constexpr std::uint32_t kPicPins = 8;

kvm_irq_routing_entry pinRoute(std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
  kvm_irq_routing_entry route{};
  route.gsi = gsi;
  route.type = KVM_IRQ_ROUTING_IRQCHIP;
  route.u.irqchip.irqchip = chip;
  route.u.irqchip.pin = pin;
  return route;
}

// What KVM has at first for controllers of its own, and forgets with the first table of ours.
std::vector<kvm_irq_routing_entry> kernelPins() {
  std::vector<kvm_irq_routing_entry> routes;
  for (std::uint32_t gsi = 0; gsi < arch::kIoApicPins; ++gsi) {
    if (gsi < 2 * kPicPins) {
      routes.push_back(pinRoute(gsi, gsi < kPicPins ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % kPicPins));
    }
    routes.push_back(pinRoute(gsi, KVM_IRQCHIP_IOAPIC, gsi));
  }
  return routes;
}

}  // namespace

class Interrupts::Vector final : public devices::MessageVector {
 public:
  Vector(Interrupts& interrupts, std::uint32_t gsi) : interrupts_(interrupts), gsi_(gsi) {}

  [[gnu::hot]] int event() const noexcept override { return event_.descriptor(); }
  void connect(std::uint64_t address, std::uint32_t data) noexcept override {
    interrupts_.calls_.call([&] {
      try {
        interrupts_.setRoute(gsi_, address, data);
        if (!isConnected_) {
          interrupts_.vm_.attachInterrupt(event_.descriptor(), gsi_);
          isConnected_ = true;
        }
      } catch (const Error&) {
        // A message that KVM does not take (an address that is none of a local APIC's) is lost, as on a PC's bus.
      }
    });
  }
  void disconnect() noexcept override {
    if (!isConnected_) {
      return;
    }
    interrupts_.calls_.call([&] {
      try {
        interrupts_.vm_.detachInterrupt(event_.descriptor(), gsi_);
        isConnected_ = false;
        interrupts_.removeRoute(gsi_);
      } catch (const Error&) {
      }
    });
  }
  bool isPending() noexcept override {
    bool pending = false;
    interrupts_.calls_.call([&] {
      pollfd event{event_.descriptor(), POLLIN, 0};
      pending = !isConnected_ && ::poll(&event, 1, 0) == 1;
    });
    return pending;
  }
  void forget() noexcept override { event_.drain(); }

 private:
  Interrupts& interrupts_;
  const std::uint32_t gsi_;
  threads::Wake event_;
  bool isConnected_ = false;
};

// A pin that a device pulses. In the kernel's I/O APIC, or a vector that the I/O APIC of ours connects.
class Interrupts::EventLine final : public devices::InterruptLine {
 public:
  EventLine(Interrupts& interrupts, std::uint32_t pin) : vector_(interrupts, pin) {}
  void pulse() noexcept override {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(vector_.event(), &one, sizeof one);
  }
  Vector& vector() noexcept { return vector_; }

 private:
  Vector vector_;
};

Interrupts::Interrupts(Vm& vm, IrqchipMode mode, devices::MmioBus& bus, threads::ControlCalls& calls)
    : vm_(vm), calls_(calls), nextGsi_(arch::kIoApicPins) {
  if (mode == IrqchipMode::kSplit) {
    vm.enableSplitIrqchip(arch::kIoApicPins);
    ioApic_ = std::make_unique<devices::IoApic>(bus);
    return;
  }
  vm.createIrqchip();
  vm.createPit();
  pins_ = kernelPins();
  for (const std::uint32_t chip : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC}) {
    initialChips_.push_back(vm.irqchip(chip));
  }
  initialPit_ = vm.pit();
}

Interrupts::~Interrupts() = default;

devices::InterruptLine& Interrupts::line(std::uint32_t pin) {
  auto& line = lines_[pin];
  if (!line) {
    line = std::make_unique<EventLine>(*this, pin);
    if (ioApic_) {
      ioApic_->attach(pin, line->vector());
    } else {
      vm_.attachInterrupt(line->vector().event(), pin);
    }
  }
  return *line;
}

std::unique_ptr<devices::MessageVector> Interrupts::makeVector() {
  // One route less than there is room for, so that each vector can have one.
  if (nextGsi_ - arch::kIoApicPins >= kMaxRoutes - 3 * arch::kIoApicPins) {
    throw Error(ErrorCode::kResourceExhausted, "the devices of this VM need more interrupts than a VM has");
  }
  return std::make_unique<Vector>(*this, nextGsi_++);
}

std::vector<int> Interrupts::signalDescriptors() const {
  std::vector<int> descriptors;
  for (const auto& [pin, line] : lines_) {
    descriptors.push_back(line->vector().event());
  }
  return descriptors;
}

void Interrupts::reset() {
  if (ioApic_) {
    ioApic_->reset();
    for (const auto& [pin, line] : lines_) {
      line->vector().forget();
    }
  }
  for (const kvm_irqchip& chip : initialChips_) {
    vm_.setIrqchip(chip);
  }
  if (!initialChips_.empty()) {
    vm_.setPit(initialPit_);
  }
}

void Interrupts::setRoute(std::uint32_t gsi, std::uint64_t address, std::uint32_t data) {
  kvm_irq_routing_entry route{};
  route.gsi = gsi;
  route.type = KVM_IRQ_ROUTING_MSI;
  route.u.msi.address_lo = static_cast<std::uint32_t>(address);
  route.u.msi.address_hi = static_cast<std::uint32_t>(address >> 32);
  route.u.msi.data = data;
  messages_[gsi] = route;
  try {
    applyRoutes();
  } catch (const Error&) {
    messages_.erase(gsi);  // one bad message must not cost the others theirs
    throw;
  }
}

void Interrupts::removeRoute(std::uint32_t gsi) {
  // It is replaced at the next connect; nothing uses it meanwhile, and writing the table is dear.
  messages_.erase(gsi);
}

void Interrupts::applyRoutes() {
  std::vector<kvm_irq_routing_entry> routes = pins_;
  for (const auto& [gsi, route] : messages_) {
    routes.push_back(route);
  }
  vm_.setRoutes(routes);
}

}  // namespace vmmhost::kvm::vm
