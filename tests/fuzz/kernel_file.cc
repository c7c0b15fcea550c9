// Files that boot, from anybody: the ELF and bzImage loaders of worker-kvm, and what worker-qemu looks at before QEMU
// does.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/boot/bytes_source.h"
#include "worker-kvm/boot/bzimage.h"
#include "worker-kvm/boot/elf.h"
#include "worker-kvm/boot/load.h"
#include "worker/image_check.h"
#include "worker/kernel_check.h"

using namespace vmmhost;

namespace {

constexpr std::uint64_t kMemoryBytes = 32 << 20;
constexpr std::uint64_t kQemuMemory = std::uint64_t{64} << 20;

Fd fileOf(std::span<const std::uint8_t> bytes, const char* name) {
  Fd memfd(::memfd_create(name, MFD_CLOEXEC));
  fuzz::require(memfd && ::write(memfd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
                "a file can be made");
  return memfd;
}

std::unique_ptr<kvm::boot::FileSource> file(std::span<const std::uint8_t> bytes, const char* name) {
  return std::make_unique<kvm::boot::FileSource>(fileOf(bytes, name), name);
}

bool isLoaded(const kvm::boot::ElfImage& image, std::uint64_t entry) {
  return std::any_of(image.segments.begin(), image.segments.end(), [entry](const kvm::boot::Segment& segment) {
    return entry >= segment.memory.start && entry < segment.memory.end();
  });
}

void tryElf(const kvm::boot::ByteSource& source) {
  const kvm::boot::ElfImage image = kvm::boot::parseElf(source);
  fuzz::require(image.pvhEntry || image.linux64Entry, "there is an entry");
  fuzz::require(!image.pvhEntry || isLoaded(image, *image.pvhEntry), "the PVH entry is inside a segment");
  fuzz::require(!image.linux64Entry || isLoaded(image, *image.linux64Entry), "the 64-bit entry is inside a segment");
}

void tryBzImage(const kvm::boot::ByteSource& source) {
  const kvm::boot::BzImage image = kvm::boot::parseBzImage(source);
  const kvm::memory::Range place = kvm::boot::placeBzImage(image, kMemoryBytes);
  fuzz::require(place.start >= kvm::arch::kHighMemoryStart && place.start < kMemoryBytes &&
                    place.bytes <= kMemoryBytes - place.start && place.bytes >= image.kernelBytes,
                "the kernel's place is in memory");
}

// As a VM does, with a page of the file as initrd.
void load(std::span<const std::uint8_t> bytes) {
  kvm::boot::BootFiles files;
  files.kernel = file(bytes, "kernel");
  files.initrd = file(bytes.first(std::min<std::size_t>(bytes.size(), 4096)), "initrd");
  files.commandLine = "console=ttyS0";
  kvm::boot::Firmware firmware;
  firmware.acpi = firmware.smbios = {1, 2, 3, 4};
  for (const auto protocol : {kvm::boot::ElfProtocol::kAuto, kvm::boot::ElfProtocol::kLinux64}) {
    files.elfProtocol = protocol;
    kvm::memory::GuestMemory memory(kvm::arch::memoryRanges(kMemoryBytes));
    fuzz::accepted([&] {
      const kvm::arch::EntryState entry = kvm::boot::load(files, firmware, memory, true);
      fuzz::require(memory.at(entry.address, 1).has_value(), "the entry is in memory");
      // What the loader made itself is whole, wherever the kernel wanted to be.
      fuzz::require(*memory.require(kvm::arch::kRsdp, 1, "RSDP").data() == 1, "the ACPI tables are there");
      fuzz::require(
          std::memcmp(memory.require(kvm::arch::kCommandLine, 14, "command line").data(), "console=ttyS0", 14) == 0,
          "the command line is there");
    });
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  fuzz::accepted([&] {
    const Fd kernel = fileOf({data, size}, "kernel");
    qemubackend::checkInitrd(kernel, kQemuMemory, qemubackend::checkKernel(kernel, kQemuMemory));
  });
  fuzz::accepted([&] { qemubackend::checkQcow2Header("disks[0]", bytes); });
  kvm::boot::findPvhEntry({data, size}, size % 2 == 0 ? 4 : 8);
  const kvm::boot::BytesSource source({data, data + size});
  const bool elf = fuzz::accepted([&] { tryElf(source); });
  const bool bzImage = fuzz::accepted([&] { tryBzImage(source); });
  if (elf || bzImage) {
    load({data, size});
  }
  return 0;
}
