#include "worker-kvm/boot/load.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/boot/bzimage.h"
#include "worker-kvm/boot/elf.h"
#include "worker-kvm/boot/linux64.h"
#include "worker-kvm/boot/memory_map.h"
#include "worker-kvm/boot/pvh.h"

namespace vmmhost::kvm::boot {

namespace {

constexpr char kMoreMemory[] = "give the VM more memory (memory.size)";

// A kernel that is in memory.
struct LoadedKernel {
  arch::EntryState entry;
  std::vector<memory::Range> occupied;
  std::uint64_t initrdEnd = arch::kDeviceGapStart;
  std::uint64_t commandLineBytes = arch::kCommandLineMaxBytes - 1;
  std::vector<std::uint8_t> setupHeader;
};

void zero(memory::Bytes bytes) {
  std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
}

void loadSegment(const FileSource& kernel, const Segment& segment, memory::GuestMemory& memory, bool fresh) {
  const std::string name = "boot.kernel: segment " + std::to_string(segment.index);
  const bool memoryAbove = memory.totalBytes() > arch::kDeviceGapStart;
  if (segment.memory.start < arch::kDeviceGapEnd && segment.memory.end() > arch::kDeviceGapStart &&
      (memoryAbove || segment.memory.start >= arch::kDeviceGapStart)) {
    throw Error(ErrorCode::kInvalidArgument, name +
                                                 " reaches into the gap from 3 to 4 GiB, where devices are and never"
                                                 " memory");
  }
  const memory::Bytes target = memory.require(segment.memory.start, segment.memory.bytes, name);
  if (kernel.read(segment.fileOffset, target.first(segment.fileBytes)) != segment.fileBytes) {
    throw Error(ErrorCode::kInvalidArgument, name + " goes beyond the end of the file");
  }
  if (!fresh) {
    zero(target.subspan(segment.fileBytes));
  }
}

LoadedKernel loadElf(const FileSource& kernel, ElfProtocol protocol, memory::GuestMemory& memory, bool fresh) {
  const ElfImage image = parseElf(kernel);
  LoadedKernel loaded;
  if (image.pvhEntry && protocol == ElfProtocol::kAuto) {
    loaded.entry = {arch::EntryMode::kPvh, *image.pvhEntry};
  } else if (image.linux64Entry) {
    loaded.entry = {arch::EntryMode::kLinux64, *image.linux64Entry};
  } else {
    throw Error(ErrorCode::kUnsupported, "boot.kernel: an ELF file that has only a PVH entry point");
  }
  for (const Segment& segment : image.segments) {
    loadSegment(kernel, segment, memory, fresh);
    loaded.occupied.push_back(segment.memory);
  }
  return loaded;
}

LoadedKernel loadBzImage(const FileSource& kernel, memory::GuestMemory& memory) {
  BzImage image = parseBzImage(kernel);
  const memory::Range place = placeBzImage(image, memory.regions().front().guest.end());
  const memory::Bytes target = memory.require(place.start, image.kernelBytes, "boot.kernel");
  if (kernel.read(image.kernelOffset, target) != target.size()) {
    throw Error(ErrorCode::kInvalidArgument, "boot.kernel: the file became shorter while it was read");
  }
  LoadedKernel loaded;
  loaded.entry = {arch::EntryMode::kLinux64, place.start + kEntryOffset};
  loaded.occupied.push_back(place);
  loaded.initrdEnd = std::min(loaded.initrdEnd, image.initrdEnd);
  loaded.commandLineBytes = std::min(loaded.commandLineBytes, image.commandLineBytes);
  loaded.setupHeader = std::move(image.setupHeader);
  return loaded;
}

LoadedKernel loadKernel(const BootFiles& files, memory::GuestMemory& memory, bool fresh) {
  if (looksLikeElf(*files.kernel)) {
    return loadElf(*files.kernel, files.elfProtocol, memory, fresh);
  }
  if (looksLikeBzImage(*files.kernel)) {
    return loadBzImage(*files.kernel, memory);
  }
  throw Error(ErrorCode::kInvalidArgument, "boot.kernel: neither an ELF file (vmlinux) nor a bzImage (vmlinuz)",
              "a kernel for the kvm backend is one of the two, built for x86-64");
}

// At the top of the memory below 4 GiB, page-aligned down, clear of the kernel.
std::optional<memory::Range> loadInitrd(const FileSource& initrd, const LoadedKernel& kernel,
                                        memory::GuestMemory& memory) {
  const std::uint64_t bytes = initrd.bytes();
  if (bytes == 0) {
    return std::nullopt;
  }
  const std::uint64_t top = std::min(memory.regions().front().guest.end(), kernel.initrdEnd);
  if (top < arch::kHighMemoryStart || bytes > top - arch::kHighMemoryStart) {
    throw Error(ErrorCode::kInvalidArgument,
                "boot.initrd: " + std::to_string(bytes) + " bytes do not fit into " + std::to_string(top >> 20) +
                    " MiB of memory",
                kMoreMemory);
  }
  const memory::Range place{(top - bytes) & ~(arch::kPageBytes - 1), bytes};
  for (const memory::Range& occupied : kernel.occupied) {
    if (place.overlaps(occupied)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "boot.initrd: " + std::to_string(bytes) + " bytes at the top of memory overlap the kernel",
                  kMoreMemory);
    }
  }
  const memory::Bytes target = memory.require(place.start, place.bytes, "boot.initrd");
  if (initrd.read(0, target) != target.size()) {
    throw Error(ErrorCode::kInvalidArgument, "boot.initrd: the file became shorter while it was read");
  }
  return place;
}

void writeCommandLine(const std::string& text, std::uint64_t maxBytes, memory::GuestMemory& memory) {
  if (text.size() > maxBytes) {
    throw Error(ErrorCode::kInvalidArgument, "boot.cmdline: has " + std::to_string(text.size()) +
                                                 " bytes, and the kernel takes at most " + std::to_string(maxBytes));
  }
  memory.write(arch::kCommandLine, {reinterpret_cast<const std::uint8_t*>(text.c_str()), text.size() + 1},
               "the kernel command line");
}

// All that there is of a firmware's code: the same in real and in protected mode.
constexpr std::array<std::uint8_t, 7> kResetCode = {
    0xb0, arch::kKeyboardReset,        // mov al, kKeyboardReset
    0xe6, arch::kKeyboardCommandPort,  // out kKeyboardCommandPort, al
    0xf4,                              // hlt
    0xeb, 0xfd,                        // jmp to the hlt
};

void writeFirmware(const Firmware& firmware, memory::GuestMemory& memory) {
  if (firmware.acpi.size() > arch::kAcpiBytes || firmware.smbios.size() > arch::kSmbiosBytes) {
    throw Error(ErrorCode::kInternal, "firmware tables are larger than their place in memory");
  }
  memory.write(arch::kAcpiStart, firmware.acpi, "the ACPI tables");
  memory.write(arch::kSmbiosStart, firmware.smbios, "the SMBIOS tables");
  memory.write(arch::kResetVector, kResetCode, "the reset vector");
}

std::vector<MapEntry> mapOf(const memory::GuestMemory& memory) {
  std::vector<memory::Range> ranges;
  for (const auto& region : memory.regions()) {
    ranges.push_back(region.guest);
  }
  return memoryMap(ranges);
}

}  // namespace

arch::EntryState load(const BootFiles& files, const Firmware& firmware, memory::GuestMemory& memory, bool fresh) {
  const LoadedKernel kernel = loadKernel(files, memory, fresh);
  const std::optional<memory::Range> initrd = files.initrd ? loadInitrd(*files.initrd, kernel, memory) : std::nullopt;
  writeCommandLine(files.commandLine, kernel.commandLineBytes, memory);
  writeFirmware(firmware, memory);
  const std::uint64_t rsdp = firmware.acpi.empty() ? 0 : arch::kRsdp;
  const std::vector<MapEntry> map = mapOf(memory);
  if (kernel.entry.mode == arch::EntryMode::kPvh) {
    writeStartInfo({initrd, rsdp, map}, memory);
  } else {
    writeZeroPage({kernel.setupHeader, static_cast<std::uint32_t>(files.commandLine.size()), initrd, rsdp, map},
                  memory);
    writeLongModeTables(memory);
  }
  return kernel.entry;
}

}  // namespace vmmhost::kvm::boot
