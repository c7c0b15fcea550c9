#include "host/vm/memory_usage.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vmmhost::vm {
namespace {

constexpr std::size_t kMib = std::size_t{1} << 20;
constexpr std::uint64_t kLow = std::uint64_t{3} << 30;
constexpr std::size_t kUsed = 16 * kMib;
// What the reading itself takes and gives back is far from it.
constexpr std::int64_t kMuch = kUsed / 2;

// Memory of which the first kUsed bytes are in use. What lies beside each other is one mapping to the kernel: a page
// that nobody may touch is on either side.
class Mapping {
 public:
  explicit Mapping(std::size_t bytes)
      : bytes_(kPage + bytes + kPage),
        start_(static_cast<std::byte*>(
            ::mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    ::mprotect(start_ + kPage, bytes, PROT_READ | PROT_WRITE);
    std::memset(start_ + kPage, 1, kUsed);
  }
  ~Mapping() { ::munmap(start_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

 private:
  static constexpr std::size_t kPage = 4096;

  std::size_t bytes_;
  std::byte* start_;
};

std::int64_t growth(std::uint64_t guestBytes, std::size_t mapped) {
  const std::uint64_t before = privateBytesOutsideGuest(openProcess(::getpid()), guestBytes);
  const Mapping mapping(mapped);
  return static_cast<std::int64_t>(privateBytesOutsideGuest(openProcess(::getpid()), guestBytes) - before);
}

TEST(MemoryUsage, mappingOfTheGuestsSize_isItsMemory) {
  EXPECT_LT(growth(512 * kMib, 512 * kMib), kMuch);
}

TEST(MemoryUsage, bothPartsOfAGuestBeyondTheGap_areItsMemory) {
  EXPECT_LT(growth(kLow + 512 * kMib, kLow), kMuch);
  EXPECT_LT(growth(kLow + 512 * kMib, 512 * kMib), kMuch);
}

TEST(MemoryUsage, otherMappings_areWhatItCosts) {
  EXPECT_GT(growth(512 * kMib, 64 * kMib), kMuch);
  EXPECT_GT(growth(kLow + 512 * kMib, 64 * kMib), kMuch);
  EXPECT_GT(growth(kLow + 512 * kMib, 1024 * kMib), kMuch);
}

}  // namespace
}  // namespace vmmhost::vm
