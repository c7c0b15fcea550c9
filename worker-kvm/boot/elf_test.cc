#include "worker-kvm/boot/elf.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/boot/bytes_source.h"

namespace vmmhost::kvm::boot {
namespace {

struct Note {
  Elf32_Nhdr header{4, 8, 18};
  char name[4] = {'X', 'e', 'n', '\0'};
  std::uint64_t entry = 0x100010;
};
static_assert(sizeof(Note) == 24);

// A kernel of two segments and a note, to be spoilt by each test.
template <typename FileHeader, typename ProgramHeader>
struct Kernel {
  FileHeader header{};
  ProgramHeader segments[3]{};
  Note note;
  std::uint8_t content[64]{};

  Kernel() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = sizeof(FileHeader) == sizeof(Elf64_Ehdr) ? ELFCLASS64 : ELFCLASS32;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = sizeof(FileHeader) == sizeof(Elf64_Ehdr) ? EM_X86_64 : EM_386;
    header.e_entry = 0x100000;
    header.e_phoff = sizeof(FileHeader);
    header.e_phentsize = sizeof(ProgramHeader);
    header.e_phnum = 3;
    segments[0].p_type = PT_LOAD;
    segments[0].p_offset = offsetof(Kernel, content);
    segments[0].p_paddr = 0x100000;
    segments[0].p_filesz = 64;
    segments[0].p_memsz = 0x2000;
    segments[1] = segments[0];
    segments[1].p_paddr = 0x200000;
    segments[1].p_filesz = 0;
    segments[2].p_type = PT_NOTE;
    segments[2].p_offset = offsetof(Kernel, note);
    segments[2].p_filesz = sizeof(Note);
    segments[2].p_align = 4;
  }
  std::vector<std::uint8_t> bytes() const {
    std::vector<std::uint8_t> result(sizeof *this);
    std::memcpy(result.data(), this, sizeof *this);
    return result;
  }
};
using Kernel64 = Kernel<Elf64_Ehdr, Elf64_Phdr>;
using Kernel32 = Kernel<Elf32_Ehdr, Elf32_Phdr>;

void expectRefusal(const Kernel64& kernel, const std::string& text) {
  try {
    parseElf(BytesSource(kernel.bytes()));
    ADD_FAILURE() << "was accepted, expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
  }
}

void expectRefusal(const std::function<void(Kernel64&)>& spoil, const std::string& text) {
  Kernel64 kernel;
  spoil(kernel);
  expectRefusal(kernel, text);
}

TEST(ParseElf, kernelOf64Bits_isRead) {
  const ElfImage image = parseElf(BytesSource(Kernel64().bytes()));
  EXPECT_EQ(image.pvhEntry, 0x100010U);
  EXPECT_EQ(image.linux64Entry, 0x100000U);
  ASSERT_EQ(image.segments.size(), 2U);
  EXPECT_EQ(image.segments[0].memory, (memory::Range{0x100000, 0x2000}));
  EXPECT_EQ(image.segments[0].fileBytes, 64U);
  EXPECT_EQ(image.segments[0].fileOffset, offsetof(Kernel64, content));
}

TEST(ParseElf, kernelOf32Bits_isRead) {
  const ElfImage image = parseElf(BytesSource(Kernel32().bytes()));
  EXPECT_EQ(image.pvhEntry, 0x100010U);
  EXPECT_FALSE(image.linux64Entry);
}

TEST(ParseElf, notAnElfFile_isRefused) {
  for (const std::string text : {"",
                                 "\x7f"
                                 "ELF",
                                 "MZ and so on, at least sixteen bytes of it"}) {
    tests::expectRefusal("boot.kernel: not an ELF file", [&] { parseElf(BytesSource({text.begin(), text.end()})); });
  }
}

TEST(ParseElf, foreignFile_isRefusedByWhatIsForeign) {
  expectRefusal([](Kernel64& kernel) { kernel.header.e_machine = EM_AARCH64; }, "machine 183");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_ident[EI_DATA] = ELFDATA2MSB; }, "little-endian");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_ident[EI_CLASS] = 7; }, "class 7");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_type = ET_REL; }, "type 1");
}

TEST(ParseElf, kernelWithoutNote_hasTheEntryOfItsHeader) {
  Kernel64 kernel;
  kernel.note.header.n_type = 17;
  const ElfImage image = parseElf(BytesSource(kernel.bytes()));
  EXPECT_FALSE(image.pvhEntry);
  EXPECT_EQ(image.linux64Entry, 0x100000U);
}

TEST(ParseElf, noteWithoutEntryInTheHeader_isEnough) {
  for (const std::uint64_t entry : {0x0UL, 0x102000UL, 0xffffffff81000000UL, UINT64_MAX}) {
    Kernel64 kernel;
    kernel.header.e_entry = entry;
    const ElfImage image = parseElf(BytesSource(kernel.bytes()));
    EXPECT_EQ(image.pvhEntry, 0x100010U);
    EXPECT_FALSE(image.linux64Entry) << entry;
  }
}

TEST(ParseElf, kernelWithoutAnyEntry_isRefused) {
  expectRefusal(
      [](Kernel64& kernel) {
        kernel.segments[2].p_type = PT_NULL;
        kernel.header.e_entry = 0x102000;
      },
      "no PVH entry point (no XEN_ELFNOTE_PHYS32_ENTRY note), and the ELF header's entry point lies outside");
  Kernel32 old;
  old.segments[2].p_type = PT_NULL;
  tests::expectRefusal("in a file of 32 bits", [&] { parseElf(BytesSource(old.bytes())); });
  Kernel64 foreign;  // the 64-bit class is no 64-bit processor
  foreign.segments[2].p_type = PT_NULL;
  foreign.header.e_machine = EM_386;
  tests::expectRefusal("no PVH entry point", [&] { parseElf(BytesSource(foreign.bytes())); });
}

TEST(ParseElf, programHeadersOutsideTheFile_areRefused) {
  expectRefusal([](Kernel64& kernel) { kernel.header.e_phnum = 0; }, "0 program headers");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_phnum = 65535; }, "65535 program headers");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_phnum = 100; }, "end of the file");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_phentsize = 1; }, "of 1 bytes");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_phoff = 1 << 20; }, "program header 0 goes beyond");
  expectRefusal([](Kernel64& kernel) { kernel.header.e_phoff = UINT64_MAX - 100; }, "program header");
}

TEST(ParseElf, hostileNotes_areRefused) {
  expectRefusal([](Kernel64& kernel) { kernel.segments[2].p_filesz = UINT64_MAX; }, "note segment 2 has more than");
  expectRefusal([](Kernel64& kernel) { kernel.segments[2].p_filesz = 60000; }, "note segment 2 goes beyond");
  expectRefusal([](Kernel64& kernel) { kernel.segments[2].p_offset = UINT64_MAX; }, "note segment 2 goes beyond");
}

TEST(ParseElf, malformedNotes_areAsNone) {
  for (Elf32_Word Elf32_Nhdr::*field : {&Elf32_Nhdr::n_namesz, &Elf32_Nhdr::n_descsz}) {
    Kernel64 kernel;
    kernel.note.header.*field = UINT32_MAX;
    EXPECT_FALSE(parseElf(BytesSource(kernel.bytes())).pvhEntry);
  }
}

TEST(ParseElf, entryOutsideTheSegments_isRefused) {
  expectRefusal([](Kernel64& kernel) { kernel.note.entry = 0x102000; }, "entry point lies outside");
  expectRefusal([](Kernel64& kernel) { kernel.note.entry = 0x100100010; }, "entry point lies outside");
}

TEST(ParseElf, hostileSegments_areRefusedByNumber) {
  expectRefusal([](Kernel64& kernel) { kernel.segments[1].p_paddr = 0x101fff; }, "segments 0 and 1 overlap");
  expectRefusal([](Kernel64& kernel) { kernel.segments[1].p_filesz = 0x2001; }, "segment 1 has more bytes in the file");
  expectRefusal([](Kernel64& kernel) { kernel.segments[1].p_memsz = UINT64_MAX; }, "segment 1 lies beyond");
  expectRefusal([](Kernel64& kernel) { kernel.segments[1].p_paddr = UINT64_MAX - 10; }, "segment 1 lies beyond");
  expectRefusal([](Kernel64& kernel) { kernel.segments[1].p_paddr = 0x7000; }, "segment 1 lies below 1 MiB");
  expectRefusal(
      [](Kernel64& kernel) {
        kernel.segments[1].p_offset = UINT64_MAX;
        kernel.segments[1].p_filesz = 2;
      },
      "segment 1's place in the file overflows");
  expectRefusal([](Kernel64& kernel) { kernel.segments[0].p_type = kernel.segments[1].p_type = PT_NULL; },
                "no segment to load");
}

TEST(FindPvhEntry, otherNotesBefore_areSteppedOver) {
  struct {
    Elf32_Nhdr header{5, 3, 18};
    char name[8] = "GNU!";
    std::uint8_t value[4]{};
    Note note;
  } notes;
  const memory::ConstBytes bytes(reinterpret_cast<const std::uint8_t*>(&notes), sizeof notes);
  EXPECT_EQ(findPvhEntry(bytes, 4), 0x100010U);
  for (std::size_t length = 0; length < sizeof notes; ++length) {
    EXPECT_FALSE(findPvhEntry(bytes.first(length), 4)) << length;
  }
}

// Whatever the bytes are, the parser answers with an image within its own rules or an Error.
TEST(ParseElf, mutatedFiles_neverBreakTheRules) {
  std::minstd_rand random(7);
  const std::vector<std::uint8_t> sound = Kernel64().bytes();
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::uint8_t> bytes = sound;
    for (int change = 0; change < 3; ++change) {
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    }
    if (round % 4 == 0) {
      bytes.resize(random() % bytes.size());
    }
    try {
      const ElfImage image = parseElf(BytesSource(std::move(bytes)));
      ++accepted;
      const auto isLoaded = [&image](std::uint64_t entry) {
        return std::any_of(image.segments.begin(), image.segments.end(), [entry](const Segment& segment) {
          return entry >= segment.memory.start && entry < segment.memory.end();
        });
      };
      ASSERT_TRUE(image.pvhEntry || image.linux64Entry);
      ASSERT_TRUE(!image.pvhEntry || isLoaded(*image.pvhEntry));
      ASSERT_TRUE(!image.linux64Entry || isLoaded(*image.linux64Entry));
      for (const Segment& segment : image.segments) {
        ASSERT_GE(segment.memory.bytes, segment.fileBytes);
        ASSERT_GE(segment.memory.start, 0x100000U);
        ASSERT_GT(segment.memory.end(), segment.memory.start);
      }
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace vmmhost::kvm::boot
