#include "worker-kvm/virtio/pci_transport.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio {

namespace {

// virtio 1.2, 4.1.2.
constexpr std::uint16_t kVendor = 0x1af4;
constexpr std::uint16_t kDeviceBase = 0x1040;
constexpr std::uint8_t kRevision = 1;
constexpr std::uint16_t kSubsystem = 0x40;  // 4.1.2.1: 0x40 or higher

// 2.1: device status.
constexpr std::uint8_t kFeaturesOk = 8;
constexpr std::uint8_t kDriverOk = 4;
constexpr std::uint8_t kNeedsReset = 64;

// 4.1.4: kinds of capabilities.
constexpr std::uint8_t kVendorCapability = 0x09;
constexpr std::uint8_t kCommonType = 1;
constexpr std::uint8_t kNotifyType = 2;
constexpr std::uint8_t kIsrType = 3;
constexpr std::uint8_t kDeviceType = 4;
constexpr std::uint8_t kConfigAccessType = 5;

// The window. Doorbells have pages of their own.
constexpr std::uint8_t kBar = 0;
constexpr std::uint8_t kPortBar = 2;  // the other is of 64 bits
constexpr std::uint32_t kMinPorts = 16;
constexpr std::uint32_t kCommonOffset = 0x0000;
constexpr std::uint32_t kCommonBytes = 0x40;
constexpr std::uint32_t kIsrOffset = 0x1000;
constexpr std::uint32_t kIsrBytes = 4;
constexpr std::uint32_t kDeviceOffset = 0x2000;
constexpr std::uint32_t kDeviceBytes = 0x1000;
constexpr std::uint32_t kTableOffset = 0x3000;
constexpr std::uint32_t kPendingOffset = 0x4000;
constexpr std::uint32_t kPendingBytes = 0x1000;
constexpr std::uint32_t kNotifyOffset = 0x6000;
constexpr std::uint32_t kNotifyMultiplier = 4;
constexpr std::uint32_t kNotifyBytes = 0x2000;
constexpr std::uint32_t kWindowBytes = 0x8000;
constexpr std::array<std::uint32_t, 2> kDoorbellOffsets = {kNotifyOffset, 0};  // in kBar, in kPortBar
static_assert(kTableOffset + pci::Msix::kTableBytes <= kPendingOffset);

// 4.1.4.3: struct virtio_pci_common_cfg.
enum Common : std::uint64_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kNumQueues = 0x12,
  kDeviceStatus = 0x14,
  kConfigGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOff = 0x1e,
  kQueueDesc = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueNotifyData = 0x38,
};

// Base class, subclass and interface as QEMU has them, which drivers do not look at.
std::uint32_t classOf(std::uint16_t type) {
  switch (type) {
    case 1:  // network
      return 0x020000;
    case 2:  // block
      return 0x010000;
    case 3:  // console
      return 0x078000;
    default:
      return 0x00ff00;
  }
}

// 4.1.4: struct virtio_pci_cap without its first two bytes.
std::vector<std::uint8_t> capabilityBody(std::uint8_t type, std::uint32_t offset, std::uint32_t bytes,
                                         std::size_t extraBytes = 0, std::uint8_t bar = kBar) {
  std::vector<std::uint8_t> body(14 + extraBytes);
  body[0] = static_cast<std::uint8_t>(body.size() + 2);
  body[1] = type;
  body[2] = bar;
  std::memcpy(body.data() + 6, &offset, 4);
  std::memcpy(body.data() + 10, &bytes, 4);
  return body;
}

// 4.1.4.4: struct virtio_pci_notify_cap.
std::vector<std::uint8_t> notifyBody(std::uint8_t bar, std::uint32_t offset, std::uint32_t bytes) {
  auto body = capabilityBody(kNotifyType, offset, bytes, 4, bar);
  std::memcpy(body.data() + 14, &kNotifyMultiplier, 4);
  return body;
}

void putLow(std::uint64_t& target, std::uint32_t value) {
  target = (target & ~std::uint64_t{0xffffffff}) | value;
}
void putHigh(std::uint64_t& target, std::uint32_t value) {
  target = (target & 0xffffffff) | std::uint64_t{value} << 32;
}

}  // namespace

PciTransport::PciTransport(std::unique_ptr<Device> device, const TransportContext& context)
    : Function({.vendor = kVendor,
                .device = static_cast<std::uint16_t>(kDeviceBase + device->type()),
                .classCode = classOf(device->type()),
                .revision = kRevision,
                .subsystemVendor = kVendor,
                .subsystem = kSubsystem}),
      context_(context),
      device_(std::move(device)),
      offeredFeatures_(device_->features() | kVersion1),
      msix_(context.messages, device_->interruptVectors()),
      window_(*this),
      ports_(*this) {
  for (const std::uint16_t size : device_->queueSizes()) {
    queues_.push_back(std::make_unique<QueueState>());
    queues_.back()->maxSize = size;
    queues_.back()->size = size;
  }
  addCapabilities();
  device_->connect(*this);
}

PciTransport::~PciTransport() {
  // Threads of the device go before what they report to.
  device_.reset();
}

void PciTransport::addCapabilities() {
  const auto ports = std::bit_ceil(static_cast<std::uint32_t>(queues_.size()) * kNotifyMultiplier);
  addBaseAddress(kBar, kWindowBytes, window_, pci::BaseKind::kMemory64);
  addBaseAddress(kPortBar, std::max(ports, kMinPorts), ports_, pci::BaseKind::kPorts);
  addCapability(kVendorCapability, capabilityBody(kCommonType, kCommonOffset, kCommonBytes));
  // 4.1.4: of two of a kind, a driver takes the first that it can.
  addCapability(kVendorCapability, notifyBody(kPortBar, 0, ports));
  addCapability(kVendorCapability, notifyBody(kBar, kNotifyOffset, kNotifyBytes));
  addCapability(kVendorCapability, capabilityBody(kIsrType, kIsrOffset, kIsrBytes));
  addCapability(kVendorCapability, capabilityBody(kDeviceType, kDeviceOffset, kDeviceBytes));
  // 4.1.4.9: offset and length are the driver's to choose, data follows them.
  configAccessCapability_ = addCapability(kVendorCapability, capabilityBody(kConfigAccessType, 0, 0, 4));
  makeWritable(configAccessCapability_ + 4, 0xff, 1);
  makeWritable(configAccessCapability_ + 8, 0xffffffff, 4);
  makeWritable(configAccessCapability_ + 12, 0xffffffff, 4);
  msixCapability_ = addCapability(pci::kMsixCapability, msix_.capability(kBar, kTableOffset, kPendingOffset));
  makeWritable(msixCapability_ + 2, pci::Msix::kControlWritable, 2);
}

std::vector<int> PciTransport::signalDescriptors() const {
  // A doorbell that the kernel did not take is rung by the virtual CPU.
  std::vector<int> all = device_->configDescriptors();
  for (const auto& queue : queues_) {
    all.push_back(queue->notified.descriptor());
  }
  return all;
}

std::vector<int> PciTransport::descriptors() const {
  std::vector<int> all{context_.wake.descriptor()};
  for (unsigned vector = 0; vector < msix_.count(); ++vector) {
    all.push_back(msix_.event(vector));
  }
  return all;
}

// 4.1.4.9: what an access to the capability's last register is meant for.
devices::BusDevice* PciTransport::configAccessTarget(std::size_t offset, std::size_t bytes) const noexcept {
  if (offset != configAccessCapability_ + 16 || get(configAccessCapability_ + 12, 4) != bytes) {
    return nullptr;
  }
  const std::uint32_t at = get(configAccessCapability_ + 8, 4);
  for (const pci::BaseAddress& base : baseAddresses()) {
    if (base.index == get(configAccessCapability_ + 4, 1) && at % bytes == 0 && at < base.bytes) {
      return base.target;
    }
  }
  return nullptr;
}

void PciTransport::readConfig(std::size_t offset, std::span<std::uint8_t> data) noexcept {
  if (devices::BusDevice* const target = configAccessTarget(offset, data.size())) {
    target->read(get(configAccessCapability_ + 8, 4), data);
    return;
  }
  Function::readConfig(offset, data);
}

void PciTransport::writeConfig(std::size_t offset, std::span<const std::uint8_t> data) noexcept {
  if (devices::BusDevice* const target = configAccessTarget(offset, data.size())) {
    target->write(get(configAccessCapability_ + 8, 4), data);
    return;
  }
  Function::writeConfig(offset, data);
  if (offset < msixCapability_ + 4 && offset + data.size() > msixCapability_ + 2) {
    msix_.setControl(static_cast<std::uint16_t>(get(msixCapability_ + 2, 2)));
  }
}

void PciTransport::Window::read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  transport_.readWindow(offset, data);
}

void PciTransport::Window::write(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  transport_.writeWindow(offset, data);
}

void PciTransport::readWindow(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
  if (offset < kIsrOffset) {
    if (data.size() <= 4 && offset % data.size() == 0) {
      const std::lock_guard lock(mutex_);
      const std::uint32_t value = readCommon(offset);
      std::memcpy(data.data(), &value, data.size());
    }
  } else if (offset >= kDeviceOffset && offset < kDeviceOffset + kDeviceBytes) {
    device_->readConfig(offset - kDeviceOffset, data);
  } else if (offset >= kTableOffset && offset < kPendingOffset) {
    msix_.readTable(offset - kTableOffset, data);
  } else if (offset >= kPendingOffset && offset < kPendingOffset + kPendingBytes) {
    msix_.readPending(offset - kPendingOffset, data);
  }
  // ISR status (4.1.4.5): with MSI-X it says nothing, and there is no other interrupt.
}

void PciTransport::writeWindow(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  if (offset < kIsrOffset) {
    // 4.1.3.1: a driver writes fields of 64 bits in two halves; some write them at once.
    if (data.size() <= 8 && offset % data.size() == 0) {
      const std::lock_guard lock(mutex_);
      for (std::size_t done = 0; done < data.size(); done += 4) {
        std::uint32_t value = 0;
        const std::size_t bytes = std::min<std::size_t>(4, data.size() - done);
        std::memcpy(&value, data.data() + done, bytes);
        writeCommon(offset + done, value, bytes);
      }
    }
  } else if (offset >= kDeviceOffset && offset < kDeviceOffset + kDeviceBytes) {
    device_->writeConfig(offset - kDeviceOffset, data);
  } else if (offset >= kTableOffset && offset < kPendingOffset) {
    msix_.writeTable(offset - kTableOffset, data);
  } else if (offset >= kNotifyOffset) {
    notify(offset - kNotifyOffset);
  }
}

std::uint32_t PciTransport::readCommon(std::uint64_t offset) noexcept {
  finishReset();
  const QueueState* queue = selectedQueue();
  switch (offset) {
    case kDeviceFeatureSelect:
      return deviceFeatureSelect_;
    case kDeviceFeature:
      return deviceFeatureSelect_ > 1 ? 0 : static_cast<std::uint32_t>(offeredFeatures_ >> deviceFeatureSelect_ * 32);
    case kDriverFeatureSelect:
      return driverFeatureSelect_;
    case kDriverFeature:
      return driverFeatureSelect_ > 1 ? 0 : static_cast<std::uint32_t>(driverFeatures_ >> driverFeatureSelect_ * 32);
    case kConfigVector:
      return configVector_.load();
    case kNumQueues:
      return static_cast<std::uint32_t>(queues_.size());
    case kDeviceStatus:
      return status_ | (needsReset_.load() ? kNeedsReset : 0U);
    case kConfigGeneration:
      return configGeneration_.load();
    case kQueueSelect:
      return queueSelect_;
    case kQueueSize:
      return queue != nullptr ? queue->size : 0;  // 4.1.4.3: 0 where there is no such queue
    case kQueueVector:
      return queue != nullptr ? queue->vector.load() : pci::kNoVector;
    case kQueueEnable:
      return queue != nullptr && queue->isEnabled ? 1 : 0;
    case kQueueNotifyOff:
    case kQueueNotifyData:
      return queueSelect_;
    case kQueueDesc:
      return queue != nullptr ? static_cast<std::uint32_t>(queue->descriptorTable) : 0;
    case kQueueDesc + 4:
      return queue != nullptr ? static_cast<std::uint32_t>(queue->descriptorTable >> 32) : 0;
    case kQueueDriver:
      return queue != nullptr ? static_cast<std::uint32_t>(queue->availableRing) : 0;
    case kQueueDriver + 4:
      return queue != nullptr ? static_cast<std::uint32_t>(queue->availableRing >> 32) : 0;
    case kQueueDevice:
      return queue != nullptr ? static_cast<std::uint32_t>(queue->usedRing) : 0;
    case kQueueDevice + 4:
      return queue != nullptr ? static_cast<std::uint32_t>(queue->usedRing >> 32) : 0;
    default:
      return 0;
  }
}

void PciTransport::writeCommon(std::uint64_t offset, std::uint32_t value, std::size_t bytes) noexcept {
  finishReset();
  switch (offset) {
    case kDeviceFeatureSelect:
      deviceFeatureSelect_ = value;
      return;
    case kDriverFeatureSelect:
      driverFeatureSelect_ = value;
      return;
    case kDriverFeature:
      // 2.2.1: settled with FEATURES_OK.
      if ((status_ & kFeaturesOk) == 0) {
        if (driverFeatureSelect_ == 0) {
          putLow(driverFeatures_, value);
        } else if (driverFeatureSelect_ == 1) {
          putHigh(driverFeatures_, value);
        }
      }
      return;
    case kConfigVector:
      configVector_.store(acceptedVector(value));
      return;
    case kDeviceStatus:
      setStatus(static_cast<std::uint8_t>(value));
      return;
    case kQueueSelect:
      queueSelect_ = static_cast<std::uint16_t>(value);
      return;
    default:
      writeQueueField(offset, value, bytes);
      return;
  }
}

void PciTransport::writeQueueField(std::uint64_t offset, std::uint32_t value, std::size_t bytes) noexcept {
  QueueState* const queue = selectedQueue();
  if (queue == nullptr) {
    return;
  }
  if (offset == kQueueVector) {
    queue->vector.store(acceptedVector(value));
    return;
  }
  // 4.1.4.3.2: an enabled queue is neither moved nor resized, and only a reset disables it.
  if (queue->isEnabled || (status_ & kDriverOk) != 0) {
    return;
  }
  switch (offset) {
    case kQueueSize:
      // Checked as a whole when the queue is made.
      queue->size = static_cast<std::uint16_t>(std::min<std::uint32_t>(value & 0xffff, queue->maxSize));
      return;
    case kQueueEnable:
      queue->isEnabled = (value & 1) != 0;
      return;
    default:
      break;
  }
  if (bytes != 4) {
    return;
  }
  switch (offset) {
    case kQueueDesc:
      return putLow(queue->descriptorTable, value);
    case kQueueDesc + 4:
      return putHigh(queue->descriptorTable, value);
    case kQueueDriver:
      return putLow(queue->availableRing, value);
    case kQueueDriver + 4:
      return putHigh(queue->availableRing, value);
    case kQueueDevice:
      return putLow(queue->usedRing, value);
    case kQueueDevice + 4:
      return putHigh(queue->usedRing, value);
    default:
      return;
  }
}

void PciTransport::setStatus(std::uint8_t status) noexcept {
  if (resetIsAsked_) {
    return;  // 2.1.1: nothing but the end of the reset
  }
  if (status == 0) {
    resetIsAsked_ = true;
    context_.calls.call([this] { beginDeactivate(); });
    finishReset();
    return;
  }
  // 2.1.2: bits are only added.
  std::uint8_t added = status & static_cast<std::uint8_t>(~status_) & static_cast<std::uint8_t>(~kNeedsReset);
  if ((added & kFeaturesOk) != 0 &&
      ((driverFeatures_ & ~offeredFeatures_) != 0 || (driverFeatures_ & kVersion1) == 0)) {
    added &= static_cast<std::uint8_t>(~kFeaturesOk);  // 3.1.1, step 6: reads as not set
  }
  const bool isReady = ((status_ | added) & kFeaturesOk) != 0;
  if ((added & kDriverOk) != 0 && !isReady) {
    added &= static_cast<std::uint8_t>(~kDriverOk);
  }
  status_ |= added;
  if ((added & kDriverOk) != 0) {
    context_.calls.call([this] { activate(); });
  }
}

void PciTransport::activate() noexcept {
  Activation activation;
  activation.features = driverFeatures_;
  for (std::uint16_t index = 0; index < queues_.size(); ++index) {
    const QueueState& state = *queues_[index];
    auto& queue = activation.queues.emplace_back();
    if (!state.isEnabled) {
      continue;
    }
    auto made = Queue::make(context_.memory, {.size = state.size,
                                              .descriptorTable = state.descriptorTable,
                                              .availableRing = state.availableRing,
                                              .usedRing = state.usedRing,
                                              .eventIndex = (driverFeatures_ & kEventIdx) != 0,
                                              .indirect = (driverFeatures_ & kIndirectDesc) != 0});
    if (!made) {
      deviceBroken("a queue lies outside the guest's memory, or has a size or place that is not allowed");
      return;
    }
    queue.emplace(ActiveQueue{index, *made, state.notified.descriptor()});
  }
  isActive_ = true;
  device_->activate(std::move(activation));
}

void PciTransport::beginDeactivate() noexcept {
  if (!isActive_) {
    return;
  }
  isActive_ = false;
  isLeaving_.store(true);
  device_->deactivate([this] {
    isLeaving_.store(false);
    context_.wake.signal();
  });
}

void PciTransport::finishReset() noexcept {
  if (resetIsAsked_ && !isLeaving_.load()) {
    resetIsAsked_ = false;
    forgetDriver();
  }
}

void PciTransport::forgetDriver() noexcept {
  status_ = 0;
  needsReset_.store(false);
  driverFeatures_ = 0;
  deviceFeatureSelect_ = 0;
  driverFeatureSelect_ = 0;
  queueSelect_ = 0;
  configVector_.store(pci::kNoVector);
  for (const auto& queue : queues_) {
    queue->size = queue->maxSize;
    queue->isEnabled = false;
    queue->descriptorTable = 0;
    queue->availableRing = 0;
    queue->usedRing = 0;
    queue->vector.store(pci::kNoVector);
  }
}

void PciTransport::beginQuiet() noexcept {
  beginDeactivate();
}

void PciTransport::reset() {
  resetIsAsked_ = false;
  forgetDriver();
  msix_.reset();
  for (const auto& queue : queues_) {
    queue->notified.drain();
  }
  Function::reset();
}

void PciTransport::notify(std::uint64_t offset) noexcept {
  const std::uint64_t index = offset / kNotifyMultiplier;
  if (index < queues_.size()) {
    queues_[index]->notified.signal();
  }
}

void PciTransport::decodingChanged() noexcept {
  for (std::size_t i = 0; i < doorbellBases_.size(); ++i) {
    if (decoded(baseAddresses()[i]) != doorbellBases_[i]) {
      context_.calls.call([this] { placeDoorbells(); });
      return;
    }
  }
}

void PciTransport::placeDoorbells() noexcept {
  for (std::size_t i = 0; i < doorbellBases_.size(); ++i) {
    const pci::BaseAddress& base = baseAddresses()[i];
    const auto before = std::exchange(doorbellBases_[i], decoded(base));
    const auto now = doorbellBases_[i];
    for (std::size_t index = 0; index < queues_.size() && before != now; ++index) {
      const std::size_t offset = kDoorbellOffsets[i] + index * kNotifyMultiplier;
      const int event = queues_[index]->notified.descriptor();
      if (before) {
        context_.doorbells.detach(base.space(), *before + offset, event);
      }
      if (now) {
        // Refused for an address that is taken: a guest may lay its devices upon each other.
        context_.doorbells.attach(base.space(), *now + offset, event);
      }
    }
  }
}

void PciTransport::Ports::read(std::uint64_t, std::span<std::uint8_t> data) noexcept {
  std::fill(data.begin(), data.end(), std::uint8_t{0});
}

void PciTransport::queueUsed(std::uint16_t queue) noexcept {
  if (queue < queues_.size()) {
    msix_.signal(queues_[queue]->vector.load());
  }
}

bool PciTransport::areToldTogether(std::uint16_t one, std::uint16_t other) const noexcept {
  return one < queues_.size() && other < queues_.size() && queues_[one]->vector.load() == queues_[other]->vector.load();
}

void PciTransport::configChanged() noexcept {
  configGeneration_.fetch_add(1);
  msix_.signal(configVector_.load());
}

void PciTransport::deviceBroken(const char* reason) noexcept {
  if (!needsReset_.exchange(true)) {
    fault_.store(reason);
    context_.wake.signal();
    msix_.signal(configVector_.load());
  }
}

std::string PciTransport::takeFault() {
  const char* reason = fault_.exchange(nullptr);
  return reason == nullptr ? std::string()
                           : std::string(device_->name()) + ": the guest's driver broke the rules: " + reason;
}

PciTransport::QueueState* PciTransport::selectedQueue() noexcept {
  return queueSelect_ < queues_.size() ? queues_[queueSelect_].get() : nullptr;
}

std::uint16_t PciTransport::acceptedVector(std::uint32_t value) const noexcept {
  // 4.1.5.1.2: what cannot be had reads as none.
  return (value & 0xffff) < msix_.count() ? static_cast<std::uint16_t>(value) : pci::kNoVector;
}

}  // namespace vmmhost::kvm::virtio
