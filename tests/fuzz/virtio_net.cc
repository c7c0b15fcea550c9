// What a driver of a network device sends: commands, headers, and queues in memory of which every byte is its own.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/virtio/net/control.h"
#include "worker-kvm/virtio/net/offloads.h"
#include "worker-kvm/virtio/net/receiver.h"
#include "worker-kvm/virtio/net/transmitter.h"

using namespace vmmhost;
using namespace vmmhost::kvm;
using namespace vmmhost::kvm::virtio;
using namespace vmmhost::kvm::virtio::net;

namespace {

constexpr std::uint64_t kMemoryBytes = 128 * 1024;

class NoInterrupts final : public Interrupts {
 public:
  void queueUsed(std::uint16_t) noexcept override {}
  void configChanged() noexcept override {}
  void deviceBroken(const char*) noexcept override {}
  std::vector<int> descriptors() const override { return {}; }
};

void commands(FuzzedDataProvider& input) {
  const auto features = input.ConsumeIntegral<std::uint64_t>();
  const auto maxPairs = input.ConsumeIntegralInRange<std::uint16_t>(1, 8);
  const auto request = input.ConsumeRemainingBytes<std::uint8_t>();
  const Command command = parseCommand(request, features, maxPairs);
  switch (command.kind) {
    case Command::Kind::kSetPairs:
      fuzz::require(command.pairs >= 1 && command.pairs <= maxPairs, "there are so many pairs");
      break;
    case Command::Kind::kSetMac:
      fuzz::require((command.mac[0] & 1) == 0, "a station's address");
      break;
    case Command::Kind::kSetOffloads:
      fuzz::require((command.offloads & ~features) == 0, "only what was agreed to");
      break;
    default:
      break;
  }
}

void headers(FuzzedDataProvider& input) {
  const auto features = withoutUnmet(input.ConsumeIntegral<std::uint64_t>());
  Header header;
  const auto bytes = input.ConsumeBytes<std::uint8_t>(sizeof header);
  if (!bytes.empty()) {
    std::memcpy(&header, bytes.data(), bytes.size());
  }
  if (admitTransmitted(header, features)) {
    fuzz::require((header.flags & ~kNeedsCsum) == 0, "no flag but this one");
    fuzz::require(header.gsoType == kGsoNone || (features & (kHostTso4 | kHostTso6 | kHostUfo | kHostUso)) != 0,
                  "cut only where it was agreed to");
  }
  if (admitReceived(header, features)) {
    fuzz::require(header.gsoType == kGsoNone || (features & kGuestOffloads & ~kGuestCsum) != 0, "the same");
  }
}

// Frames in both directions over queues that the input lays out.
void queues(FuzzedDataProvider& input) {
  static memory::GuestMemory memory(std::array{memory::Range{0, kMemoryBytes}});
  const memory::Bytes all = *memory.at(0, kMemoryBytes);
  std::fill(all.begin(), all.end(), std::uint8_t{0});
  QueueLayout layout;
  layout.size = static_cast<std::uint16_t>(1U << input.ConsumeIntegralInRange<unsigned>(0, 8));
  layout.descriptorTable = 0;
  layout.availableRing = 0x1000;
  layout.usedRing = 0x2000;
  layout.eventIndex = input.ConsumeBool();
  layout.indirect = input.ConsumeBool();
  const auto features = withoutUnmet(input.ConsumeIntegral<std::uint64_t>());
  const bool receives = input.ConsumeBool();
  const auto frameBytes = input.ConsumeIntegralInRange<std::size_t>(0, 3000);
  const auto frames = input.ConsumeIntegralInRange<unsigned>(0, 4);
  const auto available = input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(0, 64));
  std::copy(available.begin(), available.end(), all.begin() + 0x1000);
  const auto table = input.ConsumeRemainingBytes<std::uint8_t>();
  std::copy_n(table.begin(), std::min(table.size(), all.size() - 0x3000), all.begin());

  auto queue = Queue::make(memory, layout);
  fuzz::require(queue.has_value(), "the layout is right");
  int sockets[2];
  fuzz::require(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0, "socketpair");
  const Fd tap(sockets[0]);
  const Fd system(sockets[1]);
  NoInterrupts interrupts;
  Shared shared;
  shared.interrupts = &interrupts;
  shared.receiveFeatures = features & kGuestOffloads;
  if (receives) {
    Receiver receiver(shared);
    receiver.start({0, *queue, -1}, features);
    std::vector<std::uint8_t> frame(frameBytes, 0x11);
    std::fill_n(frame.begin(), std::min(frame.size(), sizeof(Header)), std::uint8_t{0});
    for (unsigned i = 0; i < frames; ++i) {
      [[maybe_unused]] const ssize_t sent = ::send(system.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
    }
    for (int turn = 0; turn < 4; ++turn) {
      if (receiver.receive(tap.get()) == Turn::kBroken || receiver.resume() == Turn::kBroken) {
        break;
      }
    }
  } else {
    Transmitter transmitter(shared);
    transmitter.start({1, *queue, -1}, features);
    for (int turn = 0; turn < 8; ++turn) {
      const Turn result = transmitter.transmit(tap.get());
      if (result == Turn::kBroken || result == Turn::kIdle) {
        break;
      }
    }
  }
  const std::uint64_t counted = shared.counters.receivedBytes + shared.counters.transmittedBytes;
  fuzz::require(counted < (std::uint64_t{1} << 30), "no more than there was");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  switch (input.ConsumeIntegralInRange<int>(0, 2)) {
    case 0:
      commands(input);
      break;
    case 1:
      headers(input);
      break;
    default:
      queues(input);
      break;
  }
  return 0;
}
