// Headers of qcow2 images, which whoever made the image wrote, or a worker that had it before.
#include <algorithm>
#include <cstring>
#include <span>

#include "host/vm/qcow2_header.h"
#include "tests/fuzz/fuzz.h"

using namespace vmmhost;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t today = 0;
  if (size < sizeof today) {
    return 0;
  }
  std::memcpy(&today, data, sizeof today);
  today >>= 1;  // of a file: at most 2^63 - 1
  const std::span<const std::uint8_t> header(data + sizeof today, std::min(size - sizeof today, vm::kQcow2HeaderBytes));
  fuzz::accepted([&] {
    const vm::Qcow2Header parsed = vm::parseQcow2Header(std::as_bytes(header));
    const std::uint64_t planned = vm::plannedBytes(parsed, today);
    fuzz::require(planned >= today && planned > parsed.virtualBytes,
                  "a plan has room for what is there and for the disk");
    // Tables of QEMU's largest size, the smallest clusters, and the slack.
    const std::uint64_t tables = std::uint64_t{64} << 20;
    fuzz::require(planned <= std::max(today, parsed.virtualBytes + parsed.virtualBytes / 8 + tables) +
                                 (parsed.keepsMore ? parsed.virtualBytes + parsed.virtualBytes / 8 + tables : 0),
                  "a plan is not much more than that");
  });
  return 0;
}
