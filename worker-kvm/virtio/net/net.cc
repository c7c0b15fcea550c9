#include "worker-kvm/virtio/net/net.h"

#include <asm/unistd.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmmhost/error.h"

namespace vmmhost::kvm::virtio::net {

namespace {

std::uint64_t packed(const MacAddress& mac) {
  std::uint64_t value = 0;
  std::memcpy(&value, mac.data(), mac.size());
  return value;
}

bool accepts(const Fd& tap, std::uint64_t features) {
  return ::ioctl(tap.get(), TUNSETOFFLOAD, static_cast<unsigned long>(tapOffloads(features))) == 0;
}

TapSupport look(const std::string& name, const std::vector<Fd>& taps) {
  TapSupport support;
  if (taps.empty()) {
    return support;
  }
  constexpr std::uint64_t kBasic = kGuestCsum | kGuestTso4 | kGuestTso6 | kGuestEcn;
  support.checksumsAndTso = accepts(taps[0], kBasic);
  support.ufo = support.checksumsAndTso && accepts(taps[0], kBasic | kGuestUfo);
  support.uso = support.checksumsAndTso && accepts(taps[0], kBasic | kGuestUso4 | kGuestUso6);
  if (!accepts(taps[0], 0)) {
    throw systemError(name + ": its descriptor is no TAP whose offloads can be set", errno);
  }
  return support;
}

// What of a driver's queues goes to a pair; control to the first one only.
enum PartQueue : std::size_t { kPartReceive, kPartTransmit, kPartControl, kPartQueues };

}  // namespace

struct Net::Served final : DeviceThread::Server {
  Served(Net& net, std::uint16_t index, const std::string& threadName, confine::Rules rules)
      : net(net),
        index(index),
        assign([&net, index] { net.assign(index); }),
        pair(net.shared_, index, threadName, std::move(rules), *this) {}

  void start(Activation activation) noexcept override { net.startPair(index, std::move(activation)); }
  bool stop() noexcept override {
    net.stopPair(index);
    return true;
  }

  Net& net;
  const std::uint16_t index;
  io::CallJob assign;
  std::atomic<std::uint32_t> noted = 0;  // of Net::switches_
  Pair pair;                             // its thread ends before the jobs
};

Net::Net(NetOptions options, std::vector<Fd> taps)
    : options_(std::move(options)),
      switchedSource_([this](std::uint32_t) { pairsSwitched(); }),
      controlNotified_([this](std::uint32_t) { serveControl(); }) {
  if (taps.size() > kMaxPairs) {
    throw Error(ErrorCode::kInvalidArgument, options_.name + ": " + std::to_string(taps.size()) +
                                                 " TAP queues, at most " + std::to_string(kMaxPairs) + " are served");
  }
  const TapSupport support = look(options_.name, taps);
  offered_ = offeredFeatures(support, options_.mtu != 0, taps.size() > 1);
  shared_.linkWanted = options_.linkUp;
  shared_.tapThere = !taps.empty();
  shared_.taps = std::move(taps);
  mac_ = packed(options_.mac);
  pairs_.resize(std::max<std::size_t>(shared_.taps.size(), 1));
  queueSizes_.assign(2 * pairs_.size() + 1, kQueueSize);
}

Net::~Net() {
  // Nothing is under way on any thread, before the first of them goes.
  for (const auto& served : pairs_) {
    if (served) {
      served->pair.thread().end();
    }
  }
}

confine::Rules Net::rulesFor(std::size_t pair) const {
  if (pair != 0) {
    return {confine::callOn(__NR_write, switched_.descriptor())};
  }
  confine::Rules rules;
  if (!shared_.taps.empty()) {
    constexpr std::uint64_t k32Bits = 0xffffffff;
    rules.push_back(
        {__NR_ioctl, {{0, k32Bits, static_cast<std::uint32_t>(shared_.taps[0].get())}, {1, k32Bits, TUNSETOFFLOAD}}});
  }
  for (const auto& served : pairs_) {
    if (served) {
      rules.push_back(confine::callOn(__NR_write, served->pair.thread().wakeDescriptor()));
    }
  }
  rules.push_back(confine::callOn(__NR_write, switched_.descriptor()));
  return rules;
}

void Net::connect(Interrupts& interrupts) {
  shared_.interrupts = &interrupts;
  ControlQueue::Target& target = *this;
  control_ = std::make_unique<ControlQueue>(interrupts, target, static_cast<std::uint16_t>(pairs_.size()));
  // The first one last: it posts to all others.
  for (std::size_t pair = pairs_.size(); pair-- > 0;) {
    const std::string thread = pairs_.size() == 1 ? options_.name : options_.name + "." + std::to_string(pair);
    pairs_[pair] = std::make_unique<Served>(*this, static_cast<std::uint16_t>(pair), thread, rulesFor(pair));
  }
  pairs_[0]->pair.thread().events().watch(switched_.descriptor(), EPOLLIN | EPOLLET, switchedSource_);
}

void Net::readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept {
  Config config;
  const std::uint64_t mac = mac_.load(std::memory_order_relaxed);
  std::memcpy(config.mac.data(), &mac, config.mac.size());
  config.status = shared_.linkUp() ? kStatusLinkUp : 0;
  config.maxVirtqueuePairs = static_cast<std::uint16_t>(pairs_.size());
  config.mtu = options_.mtu;
  std::array<std::uint8_t, sizeof config> bytes;
  std::memcpy(bytes.data(), &config, sizeof config);
  readBytes(bytes, offset, data);
}

void Net::setLink(bool up) noexcept {
  if (shared_.linkWanted.exchange(up) != up && shared_.tapThere && shared_.interrupts != nullptr) {
    shared_.interrupts->configChanged();
  }
}

std::vector<int> Net::wakeDescriptors() const {
  std::vector<int> descriptors;
  for (const auto& served : pairs_) {
    descriptors.push_back(served->pair.thread().wakeDescriptor());
  }
  return descriptors;
}

void Net::activate(Activation activation) noexcept {
  const std::uint64_t features = withoutUnmet(activation.features & offered_);
  shared_.receiveFeatures = features & kGuestOffloads;
  shared_.activePairs = 1;
  // 5.1.2: with one pair agreed to, the control queue follows it.
  const std::size_t agreed = (features & kMq) != 0 ? pairs_.size() : 1;
  for (std::size_t pair = 0; pair < pairs_.size(); ++pair) {
    Activation part;
    part.features = features;
    part.queues.resize(kPartQueues);
    if (pair < agreed) {
      part.queues[kPartReceive] = activation.moveQueue(2 * pair);
      part.queues[kPartTransmit] = activation.moveQueue(2 * pair + 1);
    }
    if (pair == 0 && (features & kCtrlVq) != 0) {
      part.queues[kPartControl] = activation.moveQueue(2 * agreed);
    }
    pairs_[pair]->pair.thread().activate(std::move(part));
  }
}

void Net::deactivate(std::function<void()> done) noexcept {
  const std::function<void()> stopped = afterCalls(pairs_.size(), std::move(done));
  pairs_[0]->pair.thread().deactivate([this, stopped] {
    forgetDriver();
    stopped();
  });
  for (std::size_t pair = 1; pair < pairs_.size(); ++pair) {
    pairs_[pair]->pair.thread().deactivate(stopped);
  }
}

void Net::startPair(std::uint16_t pair, Activation activation) noexcept {
  if (pair == 0) {
    setOffloads(activation.features);
    if (auto queue = activation.moveQueue(kPartControl)) {
      control_->start(std::move(*queue), activation.features);
      pairs_[0]->pair.thread().events().watch(control_->notified(), EPOLLIN | EPOLLET, controlNotified_);
    }
  }
  pairs_[pair]->pair.start(activation.moveQueue(kPartReceive), activation.moveQueue(kPartTransmit),
                           activation.features);
}

void Net::stopPair(std::uint16_t pair) noexcept {
  pairs_[pair]->pair.stop();
  if (pair == 0 && control_->isStarted()) {
    pairs_[0]->pair.thread().events().unwatch(control_->notified(), controlNotified_);
    control_->stop();
  }
}

void Net::forgetDriver() noexcept {
  setOffloads(0);
  mac_ = packed(options_.mac);
}

void Net::assign(std::uint16_t pair) noexcept {
  const std::uint32_t switches = switches_;
  pairs_[pair]->pair.assignTaps();
  pairs_[pair]->noted = switches;
  switched_.signal();
}

void Net::serveControl() noexcept {
  if (control_->isStarted()) {
    finishControl(control_->serve());
  }
}

void Net::pairsSwitched() noexcept {
  const bool allNoted =
      std::all_of(pairs_.begin(), pairs_.end(), [this](const auto& served) { return served->noted == switches_; });
  if (control_->isStarted() && allNoted) {
    finishControl(control_->carriedOut());
  }
}

void Net::finishControl(ControlQueue::Turn turn) noexcept {
  if (turn == ControlQueue::Turn::kMore) {
    switched_.signal();  // another turn, later
  } else if (turn == ControlQueue::Turn::kBroken) {
    pairs_[0]->pair.thread().events().unwatch(control_->notified(), controlNotified_);
    control_->stop();
    shared_.interrupts->deviceBroken("net: the driver's control queue is not what the specification asks for");
  }
}

// Of the device as a whole, whichever queue it is said to. A TAP that refuses what it took before was deleted.
void Net::setOffloads(std::uint64_t features) noexcept {
  if (!shared_.taps.empty()) {
    accepts(shared_.taps[0], features);
  }
}

ControlQueue::Target::Result Net::carryOut(const Command& command) noexcept {
  switch (command.kind) {
    case Command::Kind::kSetMac:
      mac_ = packed(command.mac);
      return Result::kDone;
    case Command::Kind::kSetOffloads:
      shared_.receiveFeatures = command.offloads;
      setOffloads(command.offloads);
      return Result::kDone;
    case Command::Kind::kSetPairs:
      // Answered when no thread puts frames on the queues that are given up (5.1.6.5.5.2).
      shared_.activePairs = command.pairs;
      ++switches_;
      for (const auto& served : pairs_) {
        served->pair.thread().events().post(served->assign);
      }
      return Result::kLater;
    default:
      return Result::kFailed;
  }
}

}  // namespace vmmhost::kvm::virtio::net
