// Requests of a disk's driver: what is to be read or written lies inside the disk, and its segments are those of the
// chain without header and status.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/virtio/block/request.h"

using namespace vmmhost;
using namespace vmmhost::kvm::virtio;
using namespace vmmhost::kvm::virtio::block;

namespace {

using Bytes = std::vector<std::uint8_t>;

// Cuts `bytes` into segments as the input says.
std::uint64_t cut(FuzzedDataProvider& input, Bytes& bytes, std::vector<iovec>& segments) {
  std::size_t at = 0;
  while (at < bytes.size() && segments.size() < 200) {
    const std::size_t length =
        segments.size() == 199 ? bytes.size() - at : input.ConsumeIntegralInRange<std::size_t>(1, bytes.size() - at);
    segments.push_back({bytes.data() + at, length});
    at += length;
  }
  return bytes.size();
}

void checkData(const Chain& chain, const Request& request, const Bytes& readable, const Bytes& writable) {
  const bool isWrite = request.action == Action::kWrite;
  const auto& side = isWrite ? chain.readable : chain.writable;
  std::vector<iovec> target(side.size());
  const auto data = dataOf(chain, request, target);
  const std::uint8_t* expected = isWrite ? readable.data() + kHeaderBytes : writable.data();
  std::uint64_t bytes = 0;
  for (const iovec& segment : data) {
    fuzz::require(segment.iov_base == expected + bytes && segment.iov_len != 0, "segments follow each other");
    bytes += segment.iov_len;
  }
  fuzz::require(bytes == request.bytes, "the data is whole");
  fuzz::require(isWrite || bytes < writable.size(), "the status is no data");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  Shape shape;
  shape.sectors = input.ConsumeBool() ? input.ConsumeIntegralInRange<std::uint64_t>(1, 1 << 20)
                                      : input.ConsumeIntegral<std::uint64_t>() >> 9;
  shape.readOnly = input.ConsumeBool();
  shape.canDiscard = input.ConsumeBool();
  shape.canWriteZeroes = input.ConsumeBool();
  Bytes writable(input.ConsumeIntegralInRange<std::size_t>(0, 4097), 0x5a);
  Bytes padding(input.ConsumeIntegralInRange<std::size_t>(0, 8) * 512);
  Bytes cuts = input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(0, 64));
  Bytes readable = input.ConsumeRemainingBytes<std::uint8_t>();
  readable.insert(readable.end(), padding.begin(), padding.end());
  FuzzedDataProvider lengths(cuts.data(), cuts.size());
  Chain chain;
  chain.readableBytes = cut(lengths, readable, chain.readable);
  chain.writableBytes = cut(lengths, writable, chain.writable);

  const auto request = parseRequest(chain, shape);
  fuzz::require(request.has_value() == !writable.empty(), "with room for a status there is an answer");
  if (!request) {
    return 0;
  }
  fuzz::require(request->status == &writable.back(), "the status is the last byte");
  fuzz::require(request->room == writable.size() - 1, "the rest is room");
  const std::uint64_t diskBytes = shape.sectors * kSectorBytes;
  Ranges ranges;
  switch (request->action) {
    case Action::kAnswer:
      fuzz::require(request->answer <= Status::kUnsupp, "the status is one of the specification's");
      break;
    case Action::kRead:
    case Action::kWrite:
      fuzz::require(request->action == Action::kRead || !shape.readOnly, "a read-only disk is not written");
      fuzz::require(request->bytes != 0 && request->bytes % kSectorBytes == 0, "whole sectors");
      fuzz::require(request->offset <= diskBytes && request->bytes <= diskBytes - request->offset, "inside the disk");
      checkData(chain, *request, readable, writable);
      break;
    case Action::kGetId:
      fuzz::require(request->bytes <= std::min<std::uint64_t>(kIdBytes, request->room), "an id fits");
      break;
    case Action::kDiscard:
    case Action::kWriteZeroes: {
      fuzz::require(!shape.readOnly, "a read-only disk is not changed");
      const ParsedRanges parsed = parseRanges(chain, *request, shape, ranges);
      fuzz::require(parsed.count == 0 || parsed.status == Status::kOk, "a wrong list changes nothing");
      for (std::size_t i = 0; i < parsed.count; ++i) {
        fuzz::require(
            ranges[i].bytes != 0 && ranges[i].offset <= diskBytes && ranges[i].bytes <= diskBytes - ranges[i].offset,
            "ranges lie inside the disk");
        fuzz::require(ranges[i].bytes <= std::uint64_t{kMaxDiscardSectors} * kSectorBytes, "ranges are bounded");
      }
      break;
    }
    case Action::kFlush:
      break;
  }
  return 0;
}
