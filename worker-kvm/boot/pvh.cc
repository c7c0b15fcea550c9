#include "worker-kvm/boot/pvh.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::boot {

namespace {

// public/arch-x86/hvm/start_info.h, version 1.
struct StartInfo {
  std::uint32_t magic = 0x336ec578;  // XEN_HVM_START_MAGIC_VALUE
  std::uint32_t version = 1;
  std::uint32_t flags = 0;
  std::uint32_t moduleCount = 0;
  std::uint64_t moduleList = 0;
  std::uint64_t commandLine = 0;
  std::uint64_t rsdp = 0;
  std::uint64_t memoryMap = 0;
  std::uint32_t memoryMapEntries = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);
static_assert(arch::kStartInfo + sizeof(StartInfo) <= arch::kModuleList);

struct Module {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t commandLine = 0;
  std::uint64_t reserved = 0;
};
static_assert(sizeof(Module) == 32);

struct MemoryMapEntry {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint32_t type = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(MemoryMapEntry) == 24);

constexpr std::uint32_t kMapUsable = 1;    // XEN_HVM_MEMMAP_TYPE_RAM
constexpr std::uint32_t kMapReserved = 2;  // XEN_HVM_MEMMAP_TYPE_RESERVED

template <typename Struct>
memory::ConstBytes bytesOf(const Struct& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
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
    const memory::Bytes zero = target.subspan(segment.fileBytes);
    std::fill(zero.begin(), zero.end(), std::uint8_t{0});
  }
}

// At the top of the memory below 4 GiB, page-aligned down, clear of the kernel.
std::optional<Module> loadInitrd(const FileSource& initrd, const KernelImage& kernel, memory::GuestMemory& memory) {
  const std::uint64_t bytes = initrd.bytes();
  if (bytes == 0) {
    return std::nullopt;
  }
  const std::uint64_t top = memory.regions().front().guest.end();
  if (bytes > top - arch::kHighMemoryStart) {
    throw Error(ErrorCode::kInvalidArgument,
                "boot.initrd: " + std::to_string(bytes) + " bytes do not fit into " + std::to_string(top >> 20) +
                    " MiB of memory",
                "give the VM more memory (memory.size)");
  }
  const memory::Range place{(top - bytes) & ~(arch::kPageBytes - 1), bytes};
  for (const Segment& segment : kernel.segments) {
    if (place.overlaps(segment.memory)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "boot.initrd: " + std::to_string(bytes) +
                      " bytes at the top of memory overlap the kernel's segment " + std::to_string(segment.index),
                  "give the VM more memory (memory.size)");
    }
  }
  const memory::Bytes target = memory.require(place.start, place.bytes, "boot.initrd");
  if (initrd.read(0, target) != target.size()) {
    throw Error(ErrorCode::kInvalidArgument, "boot.initrd: the file became shorter while it was read");
  }
  return Module{place.start, place.bytes, 0, 0};
}

}  // namespace

std::vector<MapEntry> memoryMap(std::vector<memory::Range> ranges) {
  std::vector<MapEntry> map;
  for (const memory::Range& range : ranges) {
    if (range.start == 0) {
      map.push_back({0, arch::kLowMemoryEnd, true});
      map.push_back({arch::kLowMemoryEnd, arch::kHighMemoryStart - arch::kLowMemoryEnd, false});
      map.push_back({arch::kHighMemoryStart, range.end() - arch::kHighMemoryStart, true});
    } else {
      map.push_back({range.start, range.bytes, true});
    }
  }
  return map;
}

std::size_t FileSource::read(std::uint64_t offset, memory::Bytes target) const {
  std::size_t done = 0;
  while (done < target.size()) {
    if (offset + done > static_cast<std::uint64_t>(INT64_MAX)) {
      break;  // no file goes there
    }
    const ssize_t count =
        ::pread(file_.get(), target.data() + done, target.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw systemError(name_ + ": reading at offset " + std::to_string(offset + done), errno);
    }
    if (count == 0) {
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  return done;
}

std::uint64_t FileSource::bytes() const {
  const off_t end = ::lseek(file_.get(), 0, SEEK_END);
  if (end < 0) {
    throw systemError(name_ + ": finding its size", errno);
  }
  return static_cast<std::uint64_t>(end);
}

std::uint32_t load(const BootFiles& files, memory::GuestMemory& memory, bool fresh) {
  const KernelImage kernel = parseElf(*files.kernel);
  for (const Segment& segment : kernel.segments) {
    loadSegment(*files.kernel, segment, memory, fresh);
  }

  StartInfo info;
  if (files.initrd) {
    if (const auto module = loadInitrd(*files.initrd, kernel, memory)) {
      memory.write(arch::kModuleList, bytesOf(*module), "the module list");
      info.moduleCount = 1;
      info.moduleList = arch::kModuleList;
    }
  }

  if (files.commandLine.size() >= arch::kCommandLineMaxBytes) {
    throw Error(ErrorCode::kInvalidArgument, "boot.cmdline: has " + std::to_string(files.commandLine.size()) +
                                                 " bytes, more than " + std::to_string(arch::kCommandLineMaxBytes - 1));
  }
  memory.write(arch::kCommandLine,
               {reinterpret_cast<const std::uint8_t*>(files.commandLine.c_str()), files.commandLine.size() + 1},
               "the kernel command line");
  info.commandLine = arch::kCommandLine;

  std::vector<memory::Range> ranges;
  for (const auto& region : memory.regions()) {
    ranges.push_back(region.guest);
  }
  std::uint64_t address = arch::kMemoryMap;
  for (const MapEntry& entry : memoryMap(std::move(ranges))) {
    const MemoryMapEntry written{entry.address, entry.bytes, entry.usable ? kMapUsable : kMapReserved, 0};
    memory.write(address, bytesOf(written), "the memory map");
    address += sizeof written;
    ++info.memoryMapEntries;
  }
  info.memoryMap = arch::kMemoryMap;
  memory.write(arch::kStartInfo, bytesOf(info), "the start information");
  return kernel.entry;
}

}  // namespace vmmhost::kvm::boot
