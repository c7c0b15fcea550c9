#include "worker-kvm/boot/pvh.h"

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

template <typename Struct>
memory::ConstBytes bytesOf(const Struct& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

}  // namespace

void writeStartInfo(const PvhInformation& information, memory::GuestMemory& memory) {
  StartInfo info;
  if (information.initrd) {
    const Module module{information.initrd->start, information.initrd->bytes, 0, 0};
    memory.write(arch::kModuleList, bytesOf(module), "the module list");
    info.moduleCount = 1;
    info.moduleList = arch::kModuleList;
  }
  info.commandLine = arch::kCommandLine;
  info.rsdp = information.rsdp;
  info.memoryMap = arch::kMemoryMap;
  info.memoryMapEntries = static_cast<std::uint32_t>(information.map.size());
  std::uint64_t address = arch::kMemoryMap;
  for (const MapEntry& entry : information.map) {
    const MemoryMapEntry written{entry.range.start, entry.range.bytes, static_cast<std::uint32_t>(entry.type), 0};
    memory.write(address, bytesOf(written), "the memory map");
    address += sizeof written;
  }
  memory.write(arch::kStartInfo, bytesOf(info), "the start information");
}

}  // namespace vmmhost::kvm::boot
