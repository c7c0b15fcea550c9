#include "tests/tiny_guest.h"

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "vmmhost/error.h"

namespace qemubackend::test {

namespace {

constexpr std::uint32_t kLoadAddress = 0x100000;
constexpr std::uint32_t kPvhEntryNote = 18;  // XEN_ELFNOTE_PHYS32_ENTRY

Code bytes(std::initializer_list<int> values) {
  Code code;
  for (const int value : values) {
    code += static_cast<char>(value);
  }
  return code;
}

Code outByte(int port, int value) {
  return bytes({0xb0, value, 0x66, 0xba, port & 0xff, port >> 8, 0xee});  // mov al, value; mov dx, port; out dx, al
}

Code outWord(int port, int value) {
  return bytes({0x66, 0xb8, value & 0xff, value >> 8, 0x66, 0xba, port & 0xff, port >> 8, 0x66, 0xef});
}

Code outLong(int port, std::uint32_t value) {
  Code code = bytes({0xb8});  // mov eax, value; mov dx, port; out dx, eax
  for (int shift = 0; shift < 32; shift += 8) {
    code += static_cast<char>(value >> shift & 0xff);
  }
  return code + bytes({0x66, 0xba, port & 0xff, port >> 8, 0xef});
}

}  // namespace

Code print(std::string_view text) {
  Code code;
  for (const char c : text) {
    // Wait until the transmitter takes a byte (line status register, bit 5): its FIFO has 16.
    code += bytes({0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb});  // mov dx, 0x3fd; in al, dx; test; jz -5
    code += outByte(0x3f8, static_cast<unsigned char>(c));
  }
  return code;
}

Code powerOff() {
  return outWord(0x604, 0x2000) + loopForever();
}
Code resetRequest() {
  return outByte(0x64, 0xfe) + loopForever();
}
Code tripleFault() {
  // push 0; push 0; lidt [esp]; ud2
  return bytes({0xbc, 0x00, 0x00, 0x20, 0x00, 0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b});
}
Code panic() {
  return outByte(0x505, 1) + loopForever();
}
Code loopForever() {
  return bytes({0xeb, 0xfe});
}

Code startWatchdog() {
  constexpr std::uint32_t kDevice = 0x80000000 | 1 << 11;           // PCI configuration mechanism 1
  return outLong(0xcf8, kDevice | 0x60) + outWord(0xcfc, 0x0004) +  // WDT configuration: the clock of 1 MHz
         outLong(0xcf8, kDevice | 0x68) + outByte(0xcfc, 0x02);     // WDT lock: enabled, with the times of a reset
}

Code echoUntil(char last) {
  return bytes({0x66, 0xba, 0xfd, 0x03,  // again: mov dx, 0x3fd
                0xec, 0xa8, 0x01,        // wait: in al, dx; test al, 1
                0x74, 0xfb,              // jz wait
                0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
                0xec, 0xee,              // in al, dx; out dx, al
                0x3c, last,              // cmp al, last
                0x75, 0xed});            // jne again
}

Code awaitPowerButton() {
  return outWord(0x602, 0x0100) +        // PM1a_EN.PWRBTN_EN
         bytes({0x66, 0xba, 0x00, 0x06,  // mov dx, 0x600 (PM1a_STS)
                0x66, 0xed,              // wait: in ax, dx
                0xf6, 0xc4, 0x01,        // test ah, 1 (PWRBTN_STS)
                0x74, 0xf9});            // jz wait
}

std::string guestImage(std::string_view code, bool withNote) {
  struct {
    Elf32_Ehdr file;
    Elf32_Phdr load;
    Elf32_Phdr note;
    Elf32_Nhdr noteHeader;
    char noteName[4];
    std::uint32_t entry;
  } head = {};
  std::memcpy(head.file.e_ident, ELFMAG, SELFMAG);
  head.file.e_ident[EI_CLASS] = ELFCLASS32;
  head.file.e_ident[EI_DATA] = ELFDATA2LSB;
  head.file.e_ident[EI_VERSION] = EV_CURRENT;
  head.file.e_type = ET_EXEC;
  head.file.e_machine = EM_386;
  head.file.e_version = EV_CURRENT;
  head.file.e_entry = kLoadAddress;
  head.file.e_phoff = sizeof(Elf32_Ehdr);
  head.file.e_ehsize = sizeof(Elf32_Ehdr);
  head.file.e_phentsize = sizeof(Elf32_Phdr);
  head.file.e_phnum = withNote ? 2 : 1;
  head.load.p_type = PT_LOAD;
  head.load.p_offset = sizeof(head);
  head.load.p_vaddr = kLoadAddress;
  head.load.p_paddr = kLoadAddress;
  head.load.p_filesz = static_cast<Elf32_Word>(code.size());
  head.load.p_memsz = head.load.p_filesz;
  head.load.p_flags = PF_R | PF_X;
  head.note.p_type = PT_NOTE;
  head.note.p_offset = sizeof(Elf32_Ehdr) + 2 * sizeof(Elf32_Phdr);
  head.note.p_filesz = sizeof(Elf32_Nhdr) + 8;
  head.note.p_align = 4;
  head.noteHeader.n_namesz = 4;
  head.noteHeader.n_descsz = 4;
  head.noteHeader.n_type = kPvhEntryNote;
  std::memcpy(head.noteName, "Xen", 4);
  head.entry = kLoadAddress;
  std::string image(reinterpret_cast<const char*>(&head), sizeof(head));
  image += code;
  return image;
}

vmmhost::Fd memoryFile(std::string_view content) {
  vmmhost::Fd file(::memfd_create("test", MFD_CLOEXEC));
  if (!file || ::write(file.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) {
    throw vmmhost::systemError("a file in memory", errno);
  }
  return file;
}

vmmhost::Fd guestFile(std::initializer_list<Code> pieces) {
  Code code;
  for (const Code& piece : pieces) {
    code += piece;
  }
  return memoryFile(guestImage(code));
}

}  // namespace qemubackend::test
