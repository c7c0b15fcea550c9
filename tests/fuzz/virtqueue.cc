// Virtqueues in memory that a guest wrote: any content, any layout. What a walk yields lies inside guest memory, is no
// longer than the queue, and comes from the ring; what is given back touches the used ring alone.
#include <algorithm>
#include <cstring>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/virtio/queue.h"

using namespace vmmhost;
using kvm::virtio::Chain;
using kvm::virtio::Queue;
using kvm::virtio::QueueLayout;

namespace {

constexpr std::uint64_t kLow = 0x8000;
constexpr std::uint64_t kHighStart = 0x10000;
constexpr std::uint64_t kHigh = 0x8000;

kvm::memory::GuestMemory& memory() {
  // A hole between the two, as below the PCI window.
  static kvm::memory::GuestMemory memory(std::vector<kvm::memory::Range>{{0, kLow}, {kHighStart, kHigh}});
  return memory;
}

// Overwrites guest memory with what is left of the input, over and over.
void fill(FuzzedDataProvider& input) {
  for (const auto& region : memory().regions()) {
    std::fill(region.host.begin(), region.host.end(), std::uint8_t{0});
  }
  while (input.remaining_bytes() > 4) {
    const auto offset = input.ConsumeIntegralInRange<std::uint32_t>(0, kLow + kHigh - 1);
    const auto bytes = input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(1, 256));
    const auto target = memory().regions()[offset / kLow].host.subspan(offset % kLow);
    std::copy_n(bytes.begin(), std::min(bytes.size(), target.size()), target.begin());
  }
}

bool isGuests(const iovec& segment) {
  const auto* begin = static_cast<const std::uint8_t*>(segment.iov_base);
  return std::any_of(memory().regions().begin(), memory().regions().end(), [&](const auto& region) {
    return begin >= region.host.data() && segment.iov_len <= region.host.size() &&
           begin + segment.iov_len <= region.host.data() + region.host.size();
  });
}

void check(const Chain& chain, const QueueLayout& layout) {
  fuzz::require(chain.readable.size() + chain.writable.size() <= layout.size, "a chain is no longer than the queue");
  std::uint64_t totals[2] = {};
  for (const bool isWritable : {false, true}) {
    for (const iovec& segment : isWritable ? chain.writable : chain.readable) {
      fuzz::require(segment.iov_len != 0, "no segment is empty");
      fuzz::require(isGuests(segment), "each segment lies in guest memory");
      totals[isWritable ? 1 : 0] += segment.iov_len;
    }
  }
  fuzz::require(totals[0] == chain.readableBytes && totals[1] == chain.writableBytes, "totals are those of the parts");
  fuzz::require(totals[0] + totals[1] <= std::uint64_t{1} << 32, "a chain is bounded");
  std::uint8_t bytes[64] = {};
  const std::size_t copied = kvm::virtio::copyFrom(chain.readable, chain.readableBytes / 2, bytes);
  fuzz::require(copied == std::min<std::uint64_t>(sizeof bytes, chain.readableBytes - chain.readableBytes / 2),
                "as much is copied as there is");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  QueueLayout layout;
  layout.size = input.ConsumeBool() ? static_cast<std::uint16_t>(1 << input.ConsumeIntegralInRange(0, 10))
                                    : input.ConsumeIntegral<std::uint16_t>();
  const bool isPlausible = input.ConsumeBool();
  const auto address = [&](std::uint64_t likely) {
    return isPlausible ? likely + input.ConsumeIntegral<std::uint8_t>() * std::uint64_t{16}
                       : input.ConsumeIntegral<std::uint64_t>();
  };
  layout.descriptorTable = address(0);
  layout.availableRing = address(kHighStart);
  layout.usedRing = address(kHighStart + 0x2000);
  layout.eventIndex = input.ConsumeBool();
  layout.indirect = input.ConsumeBool();
  const Queue::Position position{input.ConsumeIntegral<std::uint16_t>(), input.ConsumeIntegral<std::uint16_t>()};
  fill(input);
  auto queue = Queue::make(memory(), layout);
  if (!queue) {
    return 0;
  }
  if (position.nextAvailable % 2 == 0) {
    queue->setPosition(position);
  }
  Chain chain;
  unsigned fetched = 0;
  while (fetched <= layout.size && queue->fetch(chain) == Queue::Fetched::kChain) {
    ++fetched;
    check(chain, layout);
    // Back at once, which may write over the rings themselves where they lie on one another.
    queue->publishUsed(chain.head, static_cast<std::uint32_t>(chain.writableBytes));
    queue->needsInterrupt();
  }
  if (queue->isBroken()) {
    fuzz::require(queue->fetch(chain) == Queue::Fetched::kBroken, "a broken queue stays so");
    fuzz::require(!queue->enableNotifications(), "a broken queue has nothing more");
  }
  queue->disableNotifications();
  return 0;
}
