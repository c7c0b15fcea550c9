#include "worker-kvm/boot/linux64.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/boot/bzimage.h"

namespace vmmhost::kvm::boot {

namespace {

// zero-page.rst.
constexpr std::size_t kAcpiRsdpAddress = 0x070;
constexpr std::size_t kE820Entries = 0x1e8;
constexpr std::size_t kE820Table = 0x2d0;
constexpr std::size_t kE820MaxEntries = 128;

struct E820Entry {
  std::uint64_t address;
  std::uint64_t bytes;
  std::uint32_t type;
} __attribute__((packed));
static_assert(sizeof(E820Entry) == 20);

// boot.rst, "Details of Header Fields".
constexpr std::uint8_t kLoaderUndefined = 0xff;
constexpr std::uint16_t kVideoModeNormal = 0xffff;
constexpr std::uint8_t kLoadedHigh = 1U << 0;
constexpr std::uint32_t kElfKernelAlignment = 0x1000000;  // CONFIG_PHYSICAL_ALIGN as distributions have it, at most

// Page table entries of the Intel SDM, volume 3, 4.5.4.
constexpr std::uint64_t kPresentWritable = 3;
constexpr std::uint64_t kLargePage = 1U << 7;
constexpr std::uint64_t kLargePageBytes = std::uint64_t{2} << 20;
constexpr std::size_t kTableEntries = 512;
constexpr std::size_t kDirectories = 4;
using PageTable = std::array<std::uint64_t, kTableEntries>;
static_assert(arch::kPageDirectories + kDirectories * sizeof(PageTable) == arch::kPageTablesEnd);

using ZeroPage = std::array<std::uint8_t, arch::kPageBytes>;

template <typename Value>
void put(ZeroPage& page, std::size_t offset, Value value) {
  static_assert(std::is_trivially_copyable_v<Value>);
  std::memcpy(page.data() + offset, &value, sizeof value);  // little-endian, as this machine
}

template <typename Array>
memory::ConstBytes bytesOf(const Array& array) {
  return {reinterpret_cast<const std::uint8_t*>(array.data()), sizeof array};
}

// What a kernel reads of a header that no file gave it.
void putElfHeader(ZeroPage& page) {
  put(page, setup::kBootFlag, setup::kBootFlagValue);
  put(page, setup::kMagic, setup::kMagicValue);
  put(page, setup::kVersion, setup::kMinVersion);
  put(page, setup::kLoadFlags, kLoadedHigh);
  put(page, setup::kKernelAlignment, kElfKernelAlignment);
}

}  // namespace

void writeZeroPage(const LinuxInformation& information, memory::GuestMemory& memory) {
  if (information.map.size() > kE820MaxEntries || information.setupHeader.size() > setup::kMaxBytes) {
    throw Error(ErrorCode::kInternal, "the zero page has no room for what it is to say");
  }
  ZeroPage page{};
  if (information.setupHeader.empty()) {
    putElfHeader(page);
  } else {
    std::copy(information.setupHeader.begin(), information.setupHeader.end(), page.begin() + setup::kStart);
    // Neither quiet nor with kept segments or a heap: bits that a boot loader writes.
    page[setup::kLoadFlags] &= kLoadedHigh;
  }
  put(page, setup::kVideoMode, kVideoModeNormal);
  put(page, setup::kTypeOfLoader, kLoaderUndefined);
  put(page, setup::kCommandLinePointer, static_cast<std::uint32_t>(arch::kCommandLine));
  put(page, setup::kCommandLineSize, information.commandLineBytes);
  put(page, setup::kSetupData, std::uint64_t{0});
  const memory::Range initrd = information.initrd.value_or(memory::Range{});
  put(page, setup::kRamdiskImage, static_cast<std::uint32_t>(initrd.start));
  put(page, setup::kRamdiskSize, static_cast<std::uint32_t>(initrd.bytes));

  put(page, kAcpiRsdpAddress, information.rsdp);
  put(page, kE820Entries, static_cast<std::uint8_t>(information.map.size()));
  std::size_t offset = kE820Table;
  for (const MapEntry& entry : information.map) {
    put(page, offset, E820Entry{entry.range.start, entry.range.bytes, static_cast<std::uint32_t>(entry.type)});
    offset += sizeof(E820Entry);
  }
  memory.write(arch::kZeroPage, page, "the zero page");
}

void writeLongModeTables(memory::GuestMemory& memory) {
  // Code: 64 bits, execute and read; data: read and write; both present, accessed, 4 GiB (Intel SDM, volume 3, 3.4.5).
  const std::array<std::uint64_t, arch::kGdtBytes / 8> descriptors = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
  memory.write(arch::kGdt, bytesOf(descriptors), "the descriptor table");

  PageTable table{};
  table[0] = arch::kPageDirectoryPointers | kPresentWritable;
  memory.write(arch::kPageMapLevel4, bytesOf(table), "the page tables");
  for (std::size_t directory = 0; directory < kDirectories; ++directory) {
    table[directory] = (arch::kPageDirectories + directory * sizeof table) | kPresentWritable;
  }
  memory.write(arch::kPageDirectoryPointers, bytesOf(table), "the page tables");
  for (std::size_t directory = 0; directory < kDirectories; ++directory) {
    for (std::size_t entry = 0; entry < kTableEntries; ++entry) {
      table[entry] = (directory * kTableEntries + entry) * kLargePageBytes | kPresentWritable | kLargePage;
    }
    memory.write(arch::kPageDirectories + directory * sizeof table, bytesOf(table), "the page tables");
  }
}

}  // namespace vmmhost::kvm::boot
