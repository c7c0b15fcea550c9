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

constexpr char kHint[] =
    "an ELF kernel is an uncompressed one (vmlinux) for x86: of 64 bits, or with a XEN_ELFNOTE_PHYS32_ENTRY note (PVH)";

[[noreturn]] void refuse(std::string message) {
  throw Error(ErrorCode::kInvalidArgument, "boot.kernel: " + std::move(message), kHint);
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

// What both classes say, in 64 bits.
struct Headers {
  std::uint64_t entry = 0;
  std::uint16_t machine = 0;
  std::vector<ProgramHeader> programs;
};

template <typename FileHeader, typename Header>
Headers readHeaders(const ByteSource& file) {
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
  Headers headers{header.e_entry, header.e_machine, {}};
  headers.programs.reserve(header.e_phnum);
  for (std::uint32_t index = 0; index < header.e_phnum; ++index) {
    const std::uint64_t offset = std::uint64_t{header.e_phoff} + std::uint64_t{index} * sizeof(Header);
    if (offset < header.e_phoff) {
      refuse("the program headers' offset overflows");
    }
    const auto entry = readStruct<Header>(file, offset, "program header " + std::to_string(index));
    headers.programs.push_back(
        {entry.p_type, entry.p_offset, entry.p_paddr, entry.p_filesz, entry.p_memsz, entry.p_align});
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

std::vector<Segment> readSegments(const std::vector<ProgramHeader>& headers) {
  std::vector<Segment> segments;
  for (std::uint32_t index = 0; index < headers.size(); ++index) {
    if (headers[index].type == PT_LOAD && headers[index].memoryBytes != 0) {
      segments.push_back(checkSegment(index, headers[index]));
    }
  }
  if (segments.empty()) {
    refuse("no segment to load");
  }
  for (std::size_t first = 0; first < segments.size(); ++first) {
    for (std::size_t second = first + 1; second < segments.size(); ++second) {
      if (segments[first].memory.overlaps(segments[second].memory)) {
        refuse("segments " + std::to_string(segments[first].index) + " and " + std::to_string(segments[second].index) +
               " overlap in memory");
      }
    }
  }
  return segments;
}

// Of the first note segment that has one.
std::optional<std::uint64_t> readPvhEntry(const ByteSource& file, const std::vector<ProgramHeader>& headers) {
  for (std::uint32_t index = 0; index < headers.size(); ++index) {
    const ProgramHeader& header = headers[index];
    if (header.type != PT_NOTE) {
      continue;
    }
    const std::string name = "note segment " + std::to_string(index);
    if (header.fileBytes > kMaxNoteBytes) {
      refuse(name + " has more than " + std::to_string(kMaxNoteBytes) + " bytes");
    }
    std::vector<std::uint8_t> notes(header.fileBytes);
    readExactly(file, header.offset, notes, name);
    if (const auto entry = findPvhEntry(notes, header.alignment)) {
      return entry;
    }
  }
  return std::nullopt;
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

bool looksLikeElf(const ByteSource& file) {
  std::array<std::uint8_t, SELFMAG> magic{};
  return file.read(0, magic) == magic.size() && std::memcmp(magic.data(), ELFMAG, SELFMAG) == 0;
}

ElfImage parseElf(const ByteSource& file) {
  std::array<std::uint8_t, EI_NIDENT> ident{};
  if (file.read(0, ident) != ident.size() || std::memcmp(ident.data(), ELFMAG, SELFMAG) != 0) {
    refuse("not an ELF file");
  }
  if (ident[EI_DATA] != ELFDATA2LSB || ident[EI_VERSION] != EV_CURRENT) {
    refuse("not a little-endian ELF file of version 1");
  }
  const bool of64Bits = ident[EI_CLASS] == ELFCLASS64;
  if (!of64Bits && ident[EI_CLASS] != ELFCLASS32) {
    refuse("an ELF file of unknown class " + std::to_string(ident[EI_CLASS]));
  }
  const Headers headers =
      of64Bits ? readHeaders<Elf64_Ehdr, Elf64_Phdr>(file) : readHeaders<Elf32_Ehdr, Elf32_Phdr>(file);

  ElfImage image;
  image.segments = readSegments(headers.programs);
  const auto isLoaded = [&image](std::uint64_t address) {
    return std::any_of(image.segments.begin(), image.segments.end(), [address](const Segment& segment) {
      return address >= segment.memory.start && address < segment.memory.end();
    });
  };
  if (const auto entry = readPvhEntry(file, headers.programs)) {
    if (*entry > UINT32_MAX || !isLoaded(*entry)) {
      refuse("the PVH entry point lies outside the loaded segments");
    }
    image.pvhEntry = static_cast<std::uint32_t>(*entry);
  }
  if (of64Bits && headers.machine == EM_X86_64 && headers.entry <= UINT32_MAX && isLoaded(headers.entry)) {
    image.linux64Entry = headers.entry;
  }
  if (!image.pvhEntry && !image.linux64Entry) {
    refuse(of64Bits ? "no PVH entry point (no XEN_ELFNOTE_PHYS32_ENTRY note), and the ELF header's entry point lies "
                      "outside the loaded segments"
                    : "no PVH entry point (no XEN_ELFNOTE_PHYS32_ENTRY note) in a file of 32 bits");
  }
  return image;
}

}  // namespace vmmhost::kvm::boot
