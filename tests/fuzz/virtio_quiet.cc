// What drivers of quiet devices say: a console's control messages, and the pages that a balloon is to hold.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/virtio/balloon/pages.h"
#include "worker-kvm/virtio/console/control.h"

using namespace vmmhost;
using namespace vmmhost::kvm;
using namespace vmmhost::kvm::virtio;

namespace {

void conversation(FuzzedDataProvider& input) {
  using console::Conversation;
  std::vector<Conversation::PortNature> ports;
  const auto count = input.ConsumeIntegralInRange<std::size_t>(1, 4);
  for (std::size_t port = 0; port < count; ++port) {
    ports.push_back({input.ConsumeRandomLengthString(100), input.ConsumeBool()});
  }
  Conversation conversation(ports);
  std::array<std::uint8_t, Conversation::kMaxMessageBytes> said;
  while (input.remaining_bytes() > 0) {
    const auto port = input.ConsumeIntegralInRange<std::size_t>(0, count - 1);
    switch (input.ConsumeIntegralInRange<int>(0, 4)) {
      case 0:
        conversation.setSize(port, {input.ConsumeIntegral<std::uint16_t>(), input.ConsumeIntegral<std::uint16_t>()});
        break;
      case 1:
        conversation.setHostOpen(port, input.ConsumeBool());
        break;
      case 2: {
        const std::size_t bytes = conversation.say(said);
        fuzz::require(bytes == 0 || (bytes >= sizeof(console::ControlMessage) && bytes <= said.size()),
                      "a message has a header and fits");
        break;
      }
      default: {
        const auto message = input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(0, 12));
        if (const auto opened = conversation.hear(message)) {
          fuzz::require(opened->port < count, "only ports that there are");
        }
        break;
      }
    }
  }
  unsigned left = 0;
  while (conversation.say(said) != 0) {
    ++left;
  }
  fuzz::require(left <= 5 * count && !conversation.hasMore(), "what is to be said is bounded");
}

void pages(FuzzedDataProvider& input) {
  std::vector<memory::GuestMemory::Region> regions;
  std::uint64_t start = 0;
  for (int region = 0; region < 3; ++region) {
    start += input.ConsumeIntegralInRange<std::uint64_t>(0, 16) * balloon::kPageBytes;
    const auto bytes = input.ConsumeIntegralInRange<std::uint64_t>(1, 40000);
    regions.push_back({{start, bytes}, {}, {}});
    start += (bytes + balloon::kPageBytes - 1) / balloon::kPageBytes * balloon::kPageBytes;
  }
  std::vector<std::uint32_t> numbers;
  while (input.remaining_bytes() > 0) {
    numbers.push_back(input.ConsumeBool() ? input.ConsumeIntegralInRange<std::uint32_t>(0, 64)
                                          : input.ConsumeIntegral<std::uint32_t>());
  }
  std::vector<memory::Range> ranges;
  const std::size_t outside = balloon::toRanges(numbers, regions, ranges);
  std::uint64_t inside = 0;
  std::uint64_t last = 0;
  for (const memory::Range& range : ranges) {
    fuzz::require(range.start >= last && range.start % balloon::kPageBytes == 0, "in order, and apart");
    fuzz::require(std::any_of(regions.begin(), regions.end(),
                              [&](const auto& region) {
                                return region.guest.start <= range.start && range.end() <= region.guest.end();
                              }),
                  "never outside a region");
    last = range.end();
    inside += range.bytes / balloon::kPageBytes;
  }
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  fuzz::require(inside + outside == numbers.size(), "each page once");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  if (input.ConsumeBool()) {
    conversation(input);
  } else {
    pages(input);
  }
  return 0;
}
