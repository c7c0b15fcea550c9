#include "worker-kvm/boot/elf.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::boot {

namespace {

constexpr std::uint32_t kXenPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY, Xen's public/elfnote.h
constexpr std::uint64_t kMaxPhysicalAddress = std::uint64_t{1} << 52;  // x86-64

constexpr char kHint[] = "a PVH kernel is an uncompressed ELF file (vmlinux) with a XEN_ELFNOTE_PHYS32_ENTRY note";

[[noreturn]] void refuse(std::string message) {
  throw Error(ErrorCode::kInvalidArgument, "boot.kernel: " + std::move(message), kHint);
}

// The Linux/x86 boot protocol, 1.3: "HdrS" at 0x202 of kernels as distributions ship them.
bool isBzImage(const ByteSource& file) {
  std::array<std::uint8_t, 4> magic{};
  return file.read(0x202, magic) == magic.size() && std::memcmp(magic.data(), "HdrS", magic.size()) == 0;
}

// The same program header for both classes.
struct ProgramHeader {
  std::uint32_t type;
  std::uint64_t offset;
  std::uint64_t physicalAddress;
  std::uint64_t fileBytes;
  std::uint64_t memoryBytes;
  std::uint64_t alignment;
};

void readExactly(const ByteSource& file, std::uint64_t offset, memory::Bytes target, const std::string& what) {
  if (file.read(offset, target) != target.size()) {
    refuse(what + " goes beyond the end of the file");
  }
}

template <typename Struct>
Struct readStruct(const ByteSource& file, std::uint64_t offset, const std::string& what) {
  std::array<std::uint8_t, sizeof(Struct)> bytes;
  readExactly(file, offset, bytes, what);
  Struct value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

template <typename FileHeader, typename Header>
std::vector<ProgramHeader> readProgramHeaders(const ByteSource& file) {
  const auto header = readStruct<FileHeader>(file, 0, "the ELF header");
  if (header.e_machine != EM_X86_64 && header.e_machine != EM_386) {
    refuse("an ELF file for machine " + std::to_string(header.e_machine) + ", not for x86");
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    refuse("an ELF file of type " + std::to_string(header.e_type) + ", not an executable");
  }
  if (header.e_phentsize != sizeof(Header)) {
    refuse("program headers of " + std::to_string(header.e_phentsize) + " bytes, not " +
           std::to_string(sizeof(Header)));
  }
  if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders) {
    refuse(std::to_string(header.e_phnum) + " program headers, not 1 to " + std::to_string(kMaxProgramHeaders));
  }
  std::vector<ProgramHeader> headers;
  headers.reserve(header.e_phnum);
  for (std::uint32_t index = 0; index < header.e_phnum; ++index) {
    const std::uint64_t offset = std::uint64_t{header.e_phoff} + std::uint64_t{index} * sizeof(Header);
    if (offset < header.e_phoff) {
      refuse("the program headers' offset overflows");
    }
    const auto entry = readStruct<Header>(file, offset, "program header " + std::to_string(index));
    headers.push_back({entry.p_type, entry.p_offset, entry.p_paddr, entry.p_filesz, entry.p_memsz, entry.p_align});
  }
  return headers;
}

Segment checkSegment(std::uint32_t index, const ProgramHeader& header) {
  const std::string name = "segment " + std::to_string(index);
  if (header.fileBytes > header.memoryBytes) {
    refuse(name + " has more bytes in the file than in memory");
  }
  if (header.offset + header.fileBytes < header.offset) {
    refuse(name + "'s place in the file overflows");
  }
  if (header.physicalAddress >= kMaxPhysicalAddress || header.memoryBytes > kMaxPhysicalAddress) {
    refuse(name + " lies beyond the physical address space");
  }
  if (header.physicalAddress < arch::kHighMemoryStart) {
    refuse(name + " lies below 1 MiB, where the boot information goes");
  }
  return {index, header.offset, header.fileBytes, {header.physicalAddress, header.memoryBytes}};
}

std::uint64_t alignUp(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace

std::optional<std::uint64_t> findPvhEntry(memory::ConstBytes notes, std::uint64_t alignment) {
  // Notes are aligned to 4 bytes, or to 8 where the program header says so.
  const std::uint64_t step = alignment == 8 ? 8 : 4;
  std::uint64_t offset = 0;
  while (notes.size() - offset >= sizeof(Elf32_Nhdr)) {
    Elf32_Nhdr header;
    std::memcpy(&header, notes.data() + offset, sizeof header);
    const std::uint64_t name = offset + sizeof header;
    const std::uint64_t value = name + alignUp(header.n_namesz, step);
    const std::uint64_t end = value + header.n_descsz;
    if (end > notes.size()) {
      return std::nullopt;
    }
    const std::string_view owner(reinterpret_cast<const char*>(notes.data()) + name, header.n_namesz);
    if (owner == std::string_view("Xen\0", 4) && header.n_type == kXenPhys32Entry &&
        (header.n_descsz == 4 || header.n_descsz == 8)) {
      std::uint64_t entry = 0;
      std::memcpy(&entry, notes.data() + value, header.n_descsz);  // little-endian, as this machine
      return entry;
    }
    offset = alignUp(end, step);
    if (offset > notes.size()) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

KernelImage parseElf(const ByteSource& file) {
  std::array<std::uint8_t, EI_NIDENT> ident{};
  if (file.read(0, ident) != ident.size() || std::memcmp(ident.data(), ELFMAG, SELFMAG) != 0) {
    if (isBzImage(file)) {
      throw Error(ErrorCode::kUnsupported, "boot.kernel: a bzImage, and the kvm backend starts ELF files only", kHint);
    }
    refuse("not an ELF file");
  }
  if (ident[EI_DATA] != ELFDATA2LSB || ident[EI_VERSION] != EV_CURRENT) {
    refuse("not a little-endian ELF file of version 1");
  }
  std::vector<ProgramHeader> headers;
  if (ident[EI_CLASS] == ELFCLASS64) {
    headers = readProgramHeaders<Elf64_Ehdr, Elf64_Phdr>(file);
  } else if (ident[EI_CLASS] == ELFCLASS32) {
    headers = readProgramHeaders<Elf32_Ehdr, Elf32_Phdr>(file);
  } else {
    refuse("an ELF file of unknown class " + std::to_string(ident[EI_CLASS]));
  }

  KernelImage image;
  std::optional<std::uint64_t> entry;
  for (std::uint32_t index = 0; index < headers.size(); ++index) {
    const ProgramHeader& header = headers[index];
    if (header.type == PT_NOTE && !entry) {
      if (header.fileBytes > kMaxNoteBytes) {
        refuse("note segment " + std::to_string(index) + " has more than " + std::to_string(kMaxNoteBytes) + " bytes");
      }
      std::vector<std::uint8_t> notes(header.fileBytes);
      readExactly(file, header.offset, notes, "note segment " + std::to_string(index));
      entry = findPvhEntry(notes, header.alignment);
    } else if (header.type == PT_LOAD && header.memoryBytes != 0) {
      image.segments.push_back(checkSegment(index, header));
    }
  }
  if (image.segments.empty()) {
    refuse("no segment to load");
  }
  for (std::size_t first = 0; first < image.segments.size(); ++first) {
    for (std::size_t second = first + 1; second < image.segments.size(); ++second) {
      if (image.segments[first].memory.overlaps(image.segments[second].memory)) {
        refuse("segments " + std::to_string(image.segments[first].index) + " and " +
               std::to_string(image.segments[second].index) + " overlap in memory");
      }
    }
  }
  if (!entry) {
    refuse("no PVH entry point (no XEN_ELFNOTE_PHYS32_ENTRY note)");
  }
  const bool inside =
      *entry <= UINT32_MAX && std::any_of(image.segments.begin(), image.segments.end(), [&](const Segment& segment) {
        return *entry >= segment.memory.start && *entry < segment.memory.end();
      });
  if (!inside) {
    refuse("the PVH entry point lies outside the loaded segments");
  }
  image.entry = static_cast<std::uint32_t>(*entry);
  return image;
}

}  // namespace vmmhost::kvm::boot
