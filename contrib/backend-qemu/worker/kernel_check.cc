#include "worker/kernel_check.h"

#include <elf.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "worker/boot_file.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;
using vmmhost::Fd;

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kFourGiB = std::uint64_t{1} << 32;
constexpr std::uint32_t kMaxProgramHeaders = 128;
constexpr std::uint64_t kMaxNoteBytes = 65536;
constexpr std::uint32_t kXenPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY, Xen's public/elfnote.h
// Between an initrd and the end of the memory below 4 GiB (QEMU's hw/i386/x86.c: acpi_data_size, and a byte).
constexpr std::uint64_t kKeptAtTop = 0x28001;

[[noreturn]] void refuse(const std::string& message, std::string hint = {}) {
  throw Error(ErrorCode::kInvalidArgument, "boot.kernel: " + message, std::move(hint));
}

// Memory below 4 GiB (QEMU's hw/i386/pc_q35.c).
std::uint64_t lowMemory(std::uint64_t memoryBytes) {
  return memoryBytes >= 0xb0000000 ? 0x80000000 : memoryBytes;
}

struct Range {
  std::uint64_t start = 0;
  std::uint64_t bytes = 0;
  // Neither is beyond 2^52 where this is asked.
  std::uint64_t end() const { return start + bytes; }
};

struct ProgramHeader {
  std::uint32_t type;
  std::uint64_t offset;
  std::uint64_t address;
  std::uint64_t fileBytes;
  std::uint64_t memoryBytes;
  std::uint64_t alignment;
};

class ElfKernel {
 public:
  ElfKernel(const Fd& file, std::uint64_t memoryBytes)
      : file_(file.get()), fileBytes_(fileSize(file_, "boot.kernel")), memoryBytes_(memoryBytes) {}

  std::uint64_t check(bool is64) {
    const auto headers = is64 ? programHeaders<Elf64_Ehdr, Elf64_Phdr>() : programHeaders<Elf32_Ehdr, Elf32_Phdr>();
    std::vector<Range> loaded;
    std::optional<std::uint64_t> entry;
    for (std::size_t index = 0; index < headers.size(); ++index) {
      const ProgramHeader& header = headers[index];
      if (header.type == PT_NOTE && !entry) {
        entry = findEntry(header, index);
      } else if (header.type == PT_LOAD && header.memoryBytes != 0) {
        loaded.push_back(place(header, index));
      }
    }
    if (loaded.empty()) {
      refuse("no segment to load");
    }
    std::sort(loaded.begin(), loaded.end(), [](const Range& a, const Range& b) { return a.start < b.start; });
    for (std::size_t index = 1; index < loaded.size(); ++index) {
      if (loaded[index - 1].end() > loaded[index].start) {
        refuse("two segments overlap in memory");
      }
    }
    if (!entry) {
      refuse("an ELF file without a PVH note (XEN_ELFNOTE_PHYS32_ENTRY)", "a bzImage (vmlinuz) needs none");
    }
    if (std::none_of(loaded.begin(), loaded.end(),
                     [&](const Range& range) { return *entry >= range.start && *entry < range.end(); })) {
      refuse("the PVH entry point lies outside the loaded segments");
    }
    return loaded.back().end();
  }

 private:
  template <typename Struct>
  Struct read(std::uint64_t offset, const std::string& what) const {
    Struct value;
    if (readFrom(file_, std::as_writable_bytes(std::span(&value, 1)), offset, "boot.kernel") != sizeof(value)) {
      refuse(what + " goes beyond the end of the file");
    }
    return value;
  }

  template <typename FileHeader, typename Header>
  std::vector<ProgramHeader> programHeaders() const {
    const auto file = read<FileHeader>(0, "the ELF header");
    if (file.e_machine != EM_X86_64 && file.e_machine != EM_386) {
      refuse("an ELF file for machine " + std::to_string(file.e_machine) + ", not for x86");
    }
    if (file.e_phentsize != sizeof(Header) || file.e_phnum == 0 || file.e_phnum > kMaxProgramHeaders) {
      refuse(std::to_string(file.e_phnum) + " program headers of " + std::to_string(file.e_phentsize) +
             " bytes; expected 1 to " + std::to_string(kMaxProgramHeaders) + " of " + std::to_string(sizeof(Header)));
    }
    std::vector<ProgramHeader> headers;
    for (std::uint32_t index = 0; index < file.e_phnum; ++index) {
      if (file.e_phoff > fileBytes_) {
        refuse("the program headers lie beyond the end of the file");
      }
      const auto header = read<Header>(std::uint64_t{file.e_phoff} + std::uint64_t{index} * sizeof(Header),
                                       "program header " + std::to_string(index));
      headers.push_back(
          {header.p_type, header.p_offset, header.p_paddr, header.p_filesz, header.p_memsz, header.p_align});
    }
    return headers;
  }

  Range place(const ProgramHeader& header, std::size_t index) const {
    const std::string name = "segment " + std::to_string(index);
    if (header.offset > fileBytes_ || header.fileBytes > fileBytes_ - header.offset) {
      refuse(name + " goes beyond the end of the file");
    }
    if (header.fileBytes > header.memoryBytes) {
      refuse(name + " has more bytes in the file than in memory");
    }
    if (header.address < kMiB) {
      refuse(name + " lies below 1 MiB, where firmware and boot information are");
    }
    const std::uint64_t low = lowMemory(memoryBytes_);
    const auto fits = [&](std::uint64_t start, std::uint64_t bytes) {
      return header.address >= start && header.address - start <= bytes &&
             header.memoryBytes <= bytes - (header.address - start);
    };
    if (!fits(0, low) && !fits(kFourGiB, memoryBytes_ - low)) {
      refuse(name + " at " + std::to_string(header.address) + " (" + std::to_string(header.memoryBytes) +
                 " bytes) is outside the guest's memory of " + std::to_string(memoryBytes_ / kMiB) + " MiB",
             "give the VM more memory (memory.size)");
    }
    return {header.address, header.memoryBytes};
  }

  std::optional<std::uint64_t> findEntry(const ProgramHeader& header, std::size_t index) const {
    if (header.fileBytes > kMaxNoteBytes) {
      refuse("note segment " + std::to_string(index) + " has more than " + std::to_string(kMaxNoteBytes) + " bytes");
    }
    std::vector<std::byte> notes(header.fileBytes);
    if (header.offset > fileBytes_ || readFrom(file_, notes, header.offset, "boot.kernel") != notes.size()) {
      refuse("note segment " + std::to_string(index) + " goes beyond the end of the file");
    }
    const std::uint64_t step = header.alignment == 8 ? 8 : 4;
    const auto up = [step](std::uint64_t value) { return (value + step - 1) / step * step; };
    for (std::uint64_t at = 0; at + sizeof(Elf32_Nhdr) <= notes.size();) {
      Elf32_Nhdr note;
      std::memcpy(&note, notes.data() + at, sizeof(note));
      const std::uint64_t name = at + sizeof(note);
      const std::uint64_t value = name + up(note.n_namesz);
      if (value + note.n_descsz > notes.size()) {
        return std::nullopt;
      }
      if (note.n_type == kXenPhys32Entry && note.n_namesz == 4 && std::memcmp(notes.data() + name, "Xen", 4) == 0 &&
          (note.n_descsz == 4 || note.n_descsz == 8)) {
        std::uint64_t entry = 0;
        std::memcpy(&entry, notes.data() + value, note.n_descsz);
        return entry;
      }
      at = up(value + note.n_descsz);
    }
    return std::nullopt;
  }

  int file_;
  std::uint64_t fileBytes_;
  std::uint64_t memoryBytes_;
};

// Linux/x86 boot protocol, "The Real-Mode Kernel Header".
struct __attribute__((packed)) SetupHeader {
  std::uint8_t sectors;  // of the real-mode code, besides the first; 0 means 4
  std::uint16_t rootFlags;
  std::uint32_t paragraphs;  // of the protected-mode code, 16 bytes each
  std::uint16_t ramSize;
  std::uint16_t videoMode;
  std::uint16_t rootDevice;
  std::uint16_t bootFlag;
  std::uint16_t jump;
  std::array<char, 4> magic;
};
constexpr std::uint64_t kSetupHeader = 0x1f1;

std::uint64_t checkBzImage(const Fd& file) {
  SetupHeader header;
  const auto bytes = std::as_writable_bytes(std::span(&header, 1));
  if (readFrom(file.get(), bytes, kSetupHeader, "boot.kernel") != bytes.size() || header.bootFlag != 0xaa55 ||
      std::memcmp(header.magic.data(), "HdrS", 4) != 0) {
    refuse("neither an ELF file nor a Linux bzImage");
  }
  const std::uint64_t sectors = header.sectors == 0 ? 4 : header.sectors;
  const std::uint64_t whole = (sectors + 1) * 512 + std::uint64_t{header.paragraphs} * 16;
  const std::uint64_t size = fileSize(file.get(), "boot.kernel");
  if (size < whole) {
    refuse("a bzImage cut short: it has " + std::to_string(size) + " of " + std::to_string(whole) + " bytes");
  }
  return kMiB;
}

}  // namespace

std::uint64_t checkKernel(const Fd& file, std::uint64_t memoryBytes) {
  const auto ident = readBeginning(file.get(), EI_NIDENT, "boot.kernel");
  if (ident.size() < SELFMAG || std::memcmp(ident.data(), ELFMAG, SELFMAG) != 0) {
    return checkBzImage(file);
  }
  if (ident.size() < EI_NIDENT) {
    refuse("the ELF header goes beyond the end of the file");
  }
  const auto kind = std::to_integer<int>(ident[EI_CLASS]);
  if (ident[EI_DATA] != std::byte{ELFDATA2LSB} || (kind != ELFCLASS32 && kind != ELFCLASS64)) {
    refuse("an ELF file for another processor than x86");
  }
  return ElfKernel(file, memoryBytes).check(kind == ELFCLASS64);
}

void checkInitrd(const Fd& file, std::uint64_t memoryBytes, std::uint64_t kernelEnd) {
  const std::uint64_t bytes = fileSize(file.get(), "boot.initrd");
  const std::uint64_t top = lowMemory(memoryBytes) - kKeptAtTop;
  const std::uint64_t bottom = kernelEnd < kFourGiB ? std::min(kernelEnd, top) : kMiB;
  if (bytes > top - bottom) {
    throw Error(ErrorCode::kInvalidArgument,
                "boot.initrd: " + std::to_string(bytes) + " bytes do not fit into " +
                    std::to_string(memoryBytes / kMiB) + " MiB of memory beside the kernel",
                "give the VM more memory (memory.size)");
  }
}

}  // namespace qemubackend
