#include "worker-kvm/boot/load.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

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
// After so much of a file it is asked whether the rest is still wanted. A multiple of what memory is cleared by.
constexpr std::uint64_t kStepBytes = std::uint64_t{16} << 20;

void writeCommandLine(const std::string& text, std::uint64_t maxBytes, memory::GuestMemory& memory) {
  if (text.size() > maxBytes) {
    throw Error(ErrorCode::kInvalidArgument, "boot.cmdline: has " + std::to_string(text.size()) +
                                                 " bytes, and the kernel takes at most " + std::to_string(maxBytes))
        .withField("boot.cmdline");
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

struct Load::Kernel {
  arch::EntryState entry;
  std::vector<memory::Range> occupied;
  std::uint64_t initrdEnd = arch::kDeviceGapStart;
  std::uint64_t commandLineBytes = arch::kCommandLineMaxBytes - 1;
  std::vector<std::uint8_t> setupHeader;
};

Load::Load(const BootFiles& files, const Firmware& firmware, memory::GuestMemory& memory, bool fresh)
    : files_(files), firmware_(firmware), memory_(memory), fresh_(fresh) {
  kernel_ = aboutField("boot.kernel", [this] { return std::make_unique<Kernel>(planKernel()); });
  initrd_ = aboutField("boot.initrd", [this] { return planInitrd(*kernel_); });
}

Load::~Load() = default;

Load::Kernel Load::planKernel() {
  Kernel kernel;
  if (looksLikeElf(*files_.kernel)) {
    planElf(kernel);
  } else if (looksLikeBzImage(*files_.kernel)) {
    planBzImage(kernel);
  } else {
    throw Error(ErrorCode::kInvalidArgument, "boot.kernel: neither an ELF file (vmlinux) nor a bzImage (vmlinuz)",
                "a kernel for the kvm backend is one of the two, built for x86-64");
  }
  return kernel;
}

void Load::planElf(Kernel& kernel) {
  const ElfImage image = parseElf(*files_.kernel);
  if (image.pvhEntry && files_.elfProtocol == ElfProtocol::kAuto) {
    kernel.entry = {arch::EntryMode::kPvh, *image.pvhEntry};
  } else if (image.linux64Entry) {
    kernel.entry = {arch::EntryMode::kLinux64, *image.linux64Entry};
  } else {
    throw Error(ErrorCode::kUnsupported, "boot.kernel: an ELF file that has only a PVH entry point");
  }
  for (const Segment& segment : image.segments) {
    planSegment(segment);
    kernel.occupied.push_back(segment.memory);
  }
}

void Load::planSegment(const Segment& segment) {
  const std::string name = "boot.kernel: segment " + std::to_string(segment.index);
  const bool memoryAbove = memory_.totalBytes() > arch::kDeviceGapStart;
  if (segment.memory.start < arch::kDeviceGapEnd && segment.memory.end() > arch::kDeviceGapStart &&
      (memoryAbove || segment.memory.start >= arch::kDeviceGapStart)) {
    throw Error(ErrorCode::kInvalidArgument, name +
                                                 " reaches into the gap from 3 to 4 GiB, where devices are and never"
                                                 " memory");
  }
  const memory::Bytes target = memory_.require(segment.memory.start, segment.memory.bytes, name);
  reads_.push_back({files_.kernel.get(), segment.fileOffset, target.first(segment.fileBytes),
                    name + " goes beyond the end of the file"});
  if (!fresh_) {
    zeros_.push_back(target.subspan(segment.fileBytes));
  }
}

void Load::planBzImage(Kernel& kernel) {
  BzImage image = parseBzImage(*files_.kernel);
  const memory::Range place = placeBzImage(image, memory_.regions().front().guest.end());
  const memory::Bytes target = memory_.require(place.start, image.kernelBytes, "boot.kernel");
  reads_.push_back(
      {files_.kernel.get(), image.kernelOffset, target, "boot.kernel: the file became shorter while it was read"});
  kernel.entry = {arch::EntryMode::kLinux64, place.start + kEntryOffset};
  kernel.occupied.push_back(place);
  kernel.initrdEnd = std::min(kernel.initrdEnd, image.initrdEnd);
  kernel.commandLineBytes = std::min(kernel.commandLineBytes, image.commandLineBytes);
  kernel.setupHeader = std::move(image.setupHeader);
}

// At the top of the memory below 4 GiB, page-aligned down, clear of the kernel.
std::optional<memory::Range> Load::planInitrd(const Kernel& kernel) {
  const std::uint64_t bytes = files_.initrd ? files_.initrd->bytes() : 0;
  if (bytes == 0) {
    return std::nullopt;
  }
  const std::uint64_t top = std::min(memory_.regions().front().guest.end(), kernel.initrdEnd);
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
  reads_.push_back({files_.initrd.get(), 0, memory_.require(place.start, place.bytes, "boot.initrd"),
                    "boot.initrd: the file became shorter while it was read"});
  return place;
}

void Load::transfer(const std::atomic<bool>& isUnwanted) noexcept {
  // The next step of what is left, whose end lies at a multiple of the size of steps.
  const auto stepOf = [](memory::Bytes rest) {
    const std::uint64_t toBoundary = kStepBytes - reinterpret_cast<std::uintptr_t>(rest.data()) % kStepBytes;
    return rest.first(std::min<std::uint64_t>(rest.size(), toBoundary));
  };
  for (const Read& read : reads_) {
    std::uint64_t offset = read.offset;
    for (memory::Bytes rest = read.target; !rest.empty() && !isUnwanted.load();) {
      const memory::Bytes step = stepOf(rest);
      const FileSource::Result result = read.file->tryRead(offset, step);
      if (result.bytes != step.size()) {
        failed_ = &read;
        failedAt_ = offset + result.bytes;
        error_ = result.error;
        return;
      }
      offset += step.size();
      rest = rest.subspan(step.size());
    }
  }
  for (memory::Bytes rest : zeros_) {
    while (!rest.empty() && !isUnwanted.load()) {
      const memory::Bytes step = stepOf(rest);
      memory_.clear(step);
      rest = rest.subspan(step.size());
    }
  }
}

arch::EntryState Load::finish() {
  if (failed_ != nullptr) {
    const std::string& field = failed_->file->name();
    const Error error = error_ != 0 ? systemError(field + ": reading at offset " + std::to_string(failedAt_), error_)
                                    : Error(ErrorCode::kInvalidArgument, failed_->tooShort);
    throw error.withField(field);
  }
  writeCommandLine(files_.commandLine, kernel_->commandLineBytes, memory_);
  writeFirmware(firmware_, memory_);
  const std::uint64_t rsdp = firmware_.acpi.empty() ? 0 : arch::kRsdp;
  const std::vector<MapEntry> map = mapOf(memory_);
  if (kernel_->entry.mode == arch::EntryMode::kPvh) {
    writeStartInfo({initrd_, rsdp, map}, memory_);
  } else {
    writeZeroPage({kernel_->setupHeader, static_cast<std::uint32_t>(files_.commandLine.size()), initrd_, rsdp, map},
                  memory_);
    writeLongModeTables(memory_);
  }
  return kernel_->entry;
}

arch::EntryState load(const BootFiles& files, const Firmware& firmware, memory::GuestMemory& memory, bool fresh) {
  Load whole(files, firmware, memory, fresh);
  whole.transfer(false);
  return whole.finish();
}

}  // namespace vmmhost::kvm::boot
