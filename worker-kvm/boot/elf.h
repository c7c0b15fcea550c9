// ELF kernels (vmlinux): a strict parser over what a file says, apart from any loading.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "worker-kvm/boot/file.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// A PT_LOAD segment that has memory. `index` is its number among the program headers.
struct Segment {
  std::uint32_t index = 0;
  std::uint64_t fileOffset = 0;
  std::uint64_t fileBytes = 0;
  memory::Range memory;  // physical addresses; at least fileBytes long
};

// At least one of the entries is there, and each lies inside one of the segments.
struct ElfImage {
  std::optional<std::uint32_t> pvhEntry;      // of a XEN_ELFNOTE_PHYS32_ENTRY note
  std::optional<std::uint64_t> linux64Entry;  // of a file of 64 bits
  std::vector<Segment> segments;
};

// Bounds that no kernel comes near.
inline constexpr std::uint16_t kMaxProgramHeaders = 128;
inline constexpr std::uint64_t kMaxNoteBytes = 64 * 1024;

// The file begins as an ELF file does.
bool looksLikeElf(const ByteSource& file);

// Reads the headers of an ELF file (32 or 64 bits, x86, little-endian). Throws kInvalidArgument that names what is
// wrong: not ELF, another machine, a header, note or segment beyond the end of the file, segments that overlap, lie
// below 1 MiB or overflow, no entry or one outside them.
ElfImage parseElf(const ByteSource& file);

// The value of the XEN_ELFNOTE_PHYS32_ENTRY note among ELF notes, or nothing. Malformed notes end the search.
std::optional<std::uint64_t> findPvhEntry(memory::ConstBytes notes, std::uint64_t alignment);

}  // namespace vmmhost::kvm::boot
