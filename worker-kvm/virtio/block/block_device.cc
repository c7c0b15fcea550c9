#include "worker-kvm/virtio/block/block_device.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/virtio/device_thread.h"
#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::block {

BlockDevice::BlockDevice(BlockOptions options)
    : cache_(options.cache),
      file_(options.name, std::move(options.file), options.readOnly),
      log_(std::move(options.log)),
      full_(std::move(options.full)),
      queueSizes_(options.queues, kQueueSize) {
  if (options.queues == 0 || options.serial.size() > kIdBytes) {
    throw Error(ErrorCode::kInvalidArgument, options.name + ": a disk has a queue and a serial of at most 20 bytes");
  }
  if ((cache_ == Cache::kDirect) != file_.isDirect()) {
    throw Error(ErrorCode::kInvalidArgument, options.name + ": the file is not open as its cache mode asks (O_DIRECT)");
  }
  if (file_.bytes() < kSectorBytes) {
    throw Error(ErrorCode::kInvalidArgument, options.name + ": the file is smaller than a sector");
  }
  std::copy(options.serial.begin(), options.serial.end(), id_.begin());
  options.rings.resize(options.queues);
  for (rings::Ring& ring : options.rings) {
    engines_.push_back(makeEngine(file_, std::move(ring)));
    completions_.push_back(std::make_unique<Completions>());
  }
  fillConfig(options.queues);
}

BlockDevice::~BlockDevice() {
  for (const auto& queue : queues_) {
    queue->beginEnd();
  }
}

void BlockDevice::fillConfig(std::uint16_t queues) {
  features_ = kFeatureSegMax | kFeatureBlkSize | kFeatureTopology | kFeatureFlush | kFeatureConfigWce | kIndirectDesc |
              kEventIdx;
  config_.capacity = file_.bytes() / kSectorBytes;
  config_.segMax = kQueueSize - 2;  // with header and status a chain is as long as the queue
  config_.blkSize = file_.blockBytes();
  config_.physicalBlockExp = static_cast<std::uint8_t>(std::countr_zero(file_.preferredBytes() / file_.blockBytes()));
  config_.minIoSize = static_cast<std::uint16_t>(file_.preferredBytes() / file_.blockBytes());
  if (queues > 1) {
    features_ |= kFeatureMq;
    config_.numQueues = queues;
  }
  if (file_.isReadOnly()) {
    features_ |= kFeatureRo;
    return;
  }
  features_ |= kFeatureWriteZeroes;
  config_.maxWriteZeroesSectors = kMaxWriteZeroesSectors;
  config_.maxWriteZeroesSeg = kMaxWriteZeroesRanges;
  config_.writeZeroesMayUnmap = file_.canPunch() ? 1 : 0;
  if (file_.canPunch()) {
    features_ |= kFeatureDiscard;
    config_.maxDiscardSectors = kMaxDiscardSectors;
    config_.maxDiscardSeg = kMaxDiscardRanges;
    config_.discardSectorAlignment = file_.preferredBytes() / kSectorBytes;
  }
}

void BlockDevice::readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  Config config = config_;
  config.writeback = writeback_ ? 1 : 0;
  readBytes({reinterpret_cast<const std::uint8_t*>(&config), sizeof config}, offset, data);
}

void BlockDevice::writeConfig(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept {
  // 5.2.4: writeback is the one field that a driver may write.
  constexpr std::uint64_t kWriteback = offsetof(Config, writeback);
  if (offset <= kWriteback && kWriteback - offset < data.size()) {
    writeback_ = data[kWriteback - offset] != 0;
    decideWriteThrough();
  }
}

// 5.2.6.2: when a write that is completed has to be stable.
void BlockDevice::decideWriteThrough() noexcept {
  const std::uint64_t agreed = agreed_;
  const bool hasSwitch = (agreed & kFeatureConfigWce) != 0;
  writeThrough_ = hasSwitch ? !writeback_ : (agreed & kFeatureFlush) == 0;
}

void BlockDevice::connect(Interrupts& interrupts) {
  std::vector<int> answers;
  for (const auto& completions : completions_) {
    answers.push_back(completions->descriptor());
  }
  if (!file_.isReadOnly() || file_.isDirect()) {
    blocking_ = std::make_unique<BlockingThread>(file_, answers);
  }
  common_.emplace(
      Common{file_, interrupts, blocking_.get(), id_, cache_ == Cache::kUnsafe, writeThrough_, shape_, log_, full_});
  for (std::size_t i = 0; i < engines_.size(); ++i) {
    const std::string name = file_.name() + (engines_.size() == 1 ? "" : "-q" + std::to_string(i));
    queues_.push_back(std::make_unique<RequestQueue>(name, *common_, std::move(engines_[i]), *completions_[i]));
  }
}

void BlockDevice::activate(Activation activation) noexcept {
  agreed_ = activation.features;
  // 5.2.5.2: without a way to flush nothing may be volatile.
  if ((agreed_ & kFeatureConfigWce) != 0 && (agreed_ & kFeatureFlush) == 0) {
    writeback_ = false;
  }
  decideWriteThrough();
  shape_.sectors = config_.capacity;
  shape_.readOnly = file_.isReadOnly();
  shape_.canDiscard = (agreed_ & features_ & kFeatureDiscard) != 0;
  shape_.canWriteZeroes = (agreed_ & features_ & kFeatureWriteZeroes) != 0;
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    Activation part;
    part.features = activation.features;
    part.queues.push_back(activation.moveQueue(i));
    queues_[i]->activate(std::move(part));
  }
}

void BlockDevice::deactivate(std::function<void()> done) noexcept {
  const auto stopped = afterCalls(queues_.size(), [this, done = std::move(done)] {
    forgetDriver();
    done();
  });
  for (const auto& queue : queues_) {
    queue->deactivate(stopped);
  }
}

void BlockDevice::forgetDriver() noexcept {
  agreed_ = 0;
  writeback_ = true;
}

std::vector<int> BlockDevice::wakeDescriptors() const {
  std::vector<int> descriptors;
  for (const auto& queue : queues_) {
    descriptors.push_back(queue->wakeDescriptor());
  }
  return descriptors;
}

}  // namespace vmmhost::kvm::virtio::block
