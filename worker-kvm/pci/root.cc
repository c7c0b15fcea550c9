#include "worker-kvm/pci/root.h"

#include <algorithm>
#include <cstring>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::pci {

namespace {

constexpr std::uint32_t kEnable = std::uint32_t{1} << 31;
constexpr std::size_t kDeviceShift = 3;  // in bus, device and function numbers together

void fill(std::span<std::uint8_t> data, std::uint8_t value) noexcept {
  std::fill(data.begin(), data.end(), value);
}

// Accesses that no processor makes of one piece of a configuration register get nothing.
bool isNatural(std::uint64_t offset, std::size_t bytes) noexcept {
  return (bytes == 1 || bytes == 2 || bytes == 4) && offset % bytes == 0;
}

}  // namespace

// Function 0 of device 0. The identity is that of Cloud Hypervisor's: known to need no driver.
class Root::Bridge final : public Function {
 public:
  Bridge() : Function({.vendor = 0x8086, .device = 0x0d57, .classCode = 0x060000}) {}
};

// Hands accesses on to the functions that decode them. What a guest lays upon each other goes to the lower device
// number, what it lays outside never comes here.
class Root::Window final : public devices::BusDevice {
 public:
  Window(devices::Bus& bus, devices::Space space, const memory::Range& range, const char* name)
      : space_(space),
        range_(range),
        next_(range_.start),
        registration_(bus, range_.start, range_.bytes, *this, name) {}

  // The next free place.
  std::uint32_t place(std::uint32_t bytes) {
    const std::uint64_t at = (next_ + bytes - 1) & ~std::uint64_t{bytes - 1};
    if (at + bytes > range_.end()) {
      throw Error(ErrorCode::kResourceExhausted, "the PCI devices of this VM do not fit into their windows");
    }
    next_ = at + bytes;
    return static_cast<std::uint32_t>(at);
  }

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override {
    const std::shared_lock lock(mutex_);
    if (const Decoded* found = find(offset, data.size())) {
      found->target->read(offset - found->offset, data);
    } else {
      fill(data, 0xff);
    }
  }
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override {
    const std::shared_lock lock(mutex_);
    if (const Decoded* found = find(offset, data.size())) {
      found->target->write(offset - found->offset, data);
    }
  }
  void reset() override {}

  // Room for all base addresses that there can be: nothing is allocated on a virtual CPU's thread.
  void reserve(std::size_t count) { decoded_.reserve(count); }
  void update(std::span<const std::unique_ptr<Function>> functions) noexcept {
    const std::unique_lock lock(mutex_);
    decoded_.clear();
    for (const auto& function : functions) {
      for (const BaseAddress& base : function->baseAddresses()) {
        const auto address = base.space() == space_ ? function->decoded(base) : std::nullopt;
        if (address && Windows::holds(range_, *address, base.bytes)) {
          decoded_.push_back({*address - range_.start, base.bytes, base.target});
        }
      }
    }
  }

 private:
  struct Decoded {
    std::uint64_t offset;
    std::uint64_t bytes;
    devices::BusDevice* target;
  };
  const Decoded* find(std::uint64_t offset, std::size_t bytes) const noexcept {
    const auto found = std::find_if(decoded_.begin(), decoded_.end(), [&](const Decoded& one) {
      return offset >= one.offset && offset - one.offset + bytes <= one.bytes;
    });
    return found == decoded_.end() ? nullptr : &*found;
  }

  const devices::Space space_;
  const memory::Range range_;
  std::uint64_t next_;
  std::shared_mutex mutex_;
  std::vector<Decoded> decoded_;
  devices::Bus::Registration registration_;
};

class Root::Ecam final : public devices::BusDevice {
 public:
  Ecam(Root& root, devices::MmioBus& bus)
      : root_(root), registration_(bus, arch::kEcamStart, arch::kEcamBytes, *this, "PCI configuration") {}

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override {
    if (isNatural(offset, data.size())) {
      root_.readConfig(static_cast<std::uint32_t>(offset >> 12), offset & 0xfff, data);
    } else {
      fill(data, 0xff);
    }
  }
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override {
    if (isNatural(offset, data.size())) {
      root_.writeConfig(static_cast<std::uint32_t>(offset >> 12), offset & 0xfff, data);
    }
  }
  void reset() override {}

 private:
  Root& root_;
  devices::Bus::Registration registration_;
};

class Root::Ports final : public devices::BusDevice {
 public:
  Ports(Root& root, devices::PortBus& bus)
      : root_(root),
        registration_(bus, arch::kPciConfigPort, arch::kPciConfigPorts, *this, "PCI configuration ports") {}

  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override {
    const std::uint32_t address = address_.load();
    if (offset == 0 && data.size() == 4) {
      std::memcpy(data.data(), &address, 4);
    } else if (offset >= 4 && (address & kEnable) != 0 && isNatural(offset, data.size())) {
      root_.readConfig(address >> 8 & 0xffff, (address & 0xfc) + (offset & 3), data);
    } else {
      fill(data, 0xff);
    }
  }
  void write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override {
    if (offset == 0 && data.size() == 4) {
      std::uint32_t address = 0;
      std::memcpy(&address, data.data(), 4);
      address_.store(address);
      return;
    }
    const std::uint32_t address = address_.load();
    if (offset >= 4 && (address & kEnable) != 0 && isNatural(offset, data.size())) {
      root_.writeConfig(address >> 8 & 0xffff, (address & 0xfc) + (offset & 3), data);
    }
  }
  void reset() override { address_.store(0); }

 private:
  Root& root_;
  std::atomic<std::uint32_t> address_ = 0;
  devices::Bus::Registration registration_;
};

Root::Root(devices::PortBus& ports, devices::MmioBus& memory, std::optional<memory::Range> window64)
    : windows_{.memory64 = window64},
      memory32_(std::make_unique<Window>(memory, devices::Space::kMemory, windows_.memory32, "PCI memory window")),
      io_(std::make_unique<Window>(ports, devices::Space::kPorts, windows_.ports, "PCI I/O window")),
      ecam_(std::make_unique<Ecam>(*this, memory)),
      ports_(std::make_unique<Ports>(*this, ports)) {
  if (window64) {
    memory64_ = std::make_unique<Window>(memory, devices::Space::kMemory, *window64, "PCI memory window of 64 bits");
  }
  add(std::make_unique<Bridge>());
}

Root::~Root() = default;

void Root::add(std::unique_ptr<Function> function) {
  if (functions_.size() == kMaxFunctions) {
    throw Error(ErrorCode::kResourceExhausted,
                "a VM has room for " + std::to_string(kMaxFunctions - 1) + " PCI devices; this one has more");
  }
  for (const BaseAddress& base : function->baseAddresses_) {
    function->placeBaseAddress(base, (base.kind == BaseKind::kPorts ? io_ : memory32_)->place(base.bytes));
  }
  function->windows_ = &windows_;
  function->initial_ = function->config_;
  functions_.push_back(std::move(function));
  for (Window* const window : {memory32_.get(), memory64_.get(), io_.get()}) {
    if (window != nullptr) {
      window->reserve(functions_.size() * 6);
    }
  }
}

void Root::readConfig(std::uint32_t busDeviceFunction, std::size_t offset, std::span<std::uint8_t> data) noexcept {
  const std::size_t device = busDeviceFunction >> kDeviceShift;
  if ((busDeviceFunction & 7) != 0 || device >= functions_.size()) {
    fill(data, 0xff);  // nobody answers
    return;
  }
  if (offset + data.size() > Function::kConfigBytes) {
    fill(data, 0);  // no extended capabilities
    return;
  }
  const std::lock_guard lock(configMutex_);
  functions_[device]->readConfig(offset, data);
}

void Root::writeConfig(std::uint32_t busDeviceFunction, std::size_t offset,
                       std::span<const std::uint8_t> data) noexcept {
  const std::size_t device = busDeviceFunction >> kDeviceShift;
  if ((busDeviceFunction & 7) != 0 || device >= functions_.size() || offset + data.size() > Function::kConfigBytes) {
    return;
  }
  // Held while a virtual CPU waits for the control thread, which comes here only when none runs.
  const std::lock_guard lock(configMutex_);
  Function& function = *functions_[device];
  std::array<std::optional<std::uint64_t>, 6> before;
  const auto bases = function.baseAddresses();
  for (std::size_t i = 0; i < bases.size(); ++i) {
    before[i] = function.decoded(bases[i]);
  }
  function.writeConfig(offset, data);
  for (std::size_t i = 0; i < bases.size(); ++i) {
    if (function.decoded(bases[i]) != before[i]) {
      decode();
      function.decodingChanged();
      return;
    }
  }
}

void Root::decode() {
  for (Window* const window : {memory32_.get(), memory64_.get(), io_.get()}) {
    if (window != nullptr) {
      window->update(functions_);
    }
  }
}

void Root::beginQuiet() noexcept {
  for (const auto& function : functions_) {
    function->beginQuiet();
  }
}

bool Root::isQuiet() const noexcept {
  return std::all_of(functions_.begin(), functions_.end(), [](const auto& function) { return function->isQuiet(); });
}

void Root::setRunning(bool running) noexcept {
  for (const auto& function : functions_) {
    function->setRunning(running);
  }
}

void Root::reset() {
  ports_->reset();
  for (const auto& function : functions_) {
    function->reset();
  }
  decode();
  for (const auto& function : functions_) {
    function->decodingChanged();
  }
}

std::vector<int> Root::interruptDescriptors() const {
  std::vector<int> all;
  for (const auto& function : functions_) {
    const auto some = function->interruptDescriptors();
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

std::vector<std::string> Root::takeFaults() {
  std::vector<std::string> faults;
  for (const auto& function : functions_) {
    if (std::string fault = function->takeFault(); !fault.empty()) {
      faults.push_back(std::move(fault));
    }
  }
  return faults;
}

std::vector<int> Root::signalDescriptors() const {
  std::vector<int> all;
  for (const auto& function : functions_) {
    const auto some = function->signalDescriptors();
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

}  // namespace vmmhost::kvm::pci
