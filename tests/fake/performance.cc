#include "tests/fake/performance.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "vmmhost/error.h"

namespace vmmhost::fake {
namespace {

constexpr std::size_t kMaxProgramHeaders = 64;
constexpr std::size_t kMaxNoteBytes = 64 * 1024;
constexpr std::string_view kMarker = "vmmhost-guest:";

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, "kernel: " + message, "the fake backend plays the guests of tests/guests");
}

void readExactly(int file, std::uint64_t offset, void* target, std::size_t bytes, const std::string& what) {
  auto* at = static_cast<char*>(target);
  while (bytes > 0) {
    const ssize_t got = ::pread(file, at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      refuse(what + " goes beyond the end of the file");
    }
    at += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
}

std::optional<std::string> findMarker(const std::vector<char>& notes) {
  const auto aligned = [](std::size_t value) { return (value + 3) & ~std::size_t{3}; };
  std::size_t offset = 0;
  while (notes.size() - offset >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, notes.data() + offset, sizeof header);
    const std::size_t name = offset + sizeof header;
    const std::size_t value = name + aligned(header.n_namesz);
    if (value + header.n_descsz > notes.size()) {
      break;
    }
    const std::string_view owner(notes.data() + name, header.n_namesz);
    const std::string_view text(notes.data() + value, header.n_descsz);
    if (owner == std::string_view("vmmhost\0", 8) && text.starts_with(kMarker)) {
      return std::string(text.substr(kMarker.size()));
    }
    offset = std::min(value + aligned(header.n_descsz), notes.size());
  }
  return std::nullopt;
}

// The bytes of a guest's numbers as the macros of guest.inc print them.
std::string hexadecimal(std::uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

std::string flood(std::uint32_t lines, std::uint32_t first = 0) {
  std::string text;
  for (std::uint32_t line = first; line < first + lines; ++line) {
    text += hexadecimal(line) + " the quick brown fox jumps over the lazy dog 0123456789\n";
  }
  return text;
}

// From 2 MiB up to where memory below 4 GiB ends, which is 3 GiB on worker-kvm.
std::string touched(std::uint64_t memoryBytes) {
  constexpr std::uint64_t kFrom = std::uint64_t{2} << 20;
  constexpr std::uint64_t kEnd = std::uint64_t{3} << 30;
  const std::uint64_t end = std::max(kFrom, std::min(memoryBytes, kEnd));
  return "touched " + std::to_string((end - kFrom) / 1024) + " KiB\n";
}

std::string modules(int initrd) {
  if (initrd < 0) {
    return "modules 0\n";
  }
  std::array<unsigned char, 4096> bytes;
  const off_t size = ::lseek(initrd, 0, SEEK_END);
  const std::size_t summed = std::min<std::size_t>(static_cast<std::size_t>(std::max<off_t>(size, 0)), bytes.size());
  readExactly(initrd, 0, bytes.data(), summed, "the initrd");
  std::uint32_t sum = 0;
  std::for_each_n(bytes.begin(), summed, [&](unsigned char byte) { sum += byte; });
  return "modules 1, first has " + std::to_string(size) + " bytes, sum " + std::to_string(sum) + "\n";
}

std::string threeReads(const char* what) {
  return std::string(what) + " 000000ff\n" + what + " 0000ffff\n" + what + " ffffffff\n";
}

Performance poweringOff(std::string says) {
  Performance performance;
  performance.says = std::move(says);
  performance.detail = "the guest powered off";
  performance.exits = performance.portExits = 1;  // the write to the power port
  return performance;
}

Performance ending(schema::EndCause cause, std::string detail, std::string says = {}) {
  Performance performance;
  performance.says = std::move(says);
  performance.cause = cause;
  performance.detail = std::move(detail);
  performance.exits = 1;
  return performance;
}

}  // namespace

std::string guestName(int kernel) {
  Elf64_Ehdr header = {};
  if (::pread(kernel, &header, sizeof header, 0) < static_cast<ssize_t>(EI_NIDENT) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    std::array<char, 4> magic{};  // the Linux/x86 boot protocol, 1.3
    if (::pread(kernel, magic.data(), magic.size(), 0x202) == static_cast<ssize_t>(magic.size()) &&
        std::string_view(magic.data(), magic.size()) == "HdrS") {
      throw Error(ErrorCode::kUnsupported, "boot.kernel: the fake backend plays no bzImage",
                  "it plays the guests of tests/guests");
    }
    refuse("not an ELF file");
  }
  readExactly(kernel, 0, &header, sizeof header, "the ELF header");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum > kMaxProgramHeaders) {
    refuse("not a 64-bit ELF executable with 1 to " + std::to_string(kMaxProgramHeaders) + " program headers");
  }
  const off_t fileBytes = ::lseek(kernel, 0, SEEK_END);
  std::optional<std::string> name;
  for (std::uint64_t index = 0; index < header.e_phnum; ++index) {
    Elf64_Phdr entry = {};
    readExactly(kernel, header.e_phoff + index * sizeof entry, &entry, sizeof entry,
                "program header " + std::to_string(index));
    if (entry.p_offset > static_cast<std::uint64_t>(fileBytes) ||
        entry.p_filesz > static_cast<std::uint64_t>(fileBytes) - entry.p_offset) {
      refuse("segment " + std::to_string(index) + " goes beyond the end of the file");
    }
    if (entry.p_type == PT_NOTE && entry.p_filesz <= kMaxNoteBytes && !name) {
      std::vector<char> notes(entry.p_filesz);
      readExactly(kernel, entry.p_offset, notes.data(), notes.size(), "segment " + std::to_string(index));
      name = findMarker(notes);
    }
  }
  if (!name) {
    refuse("an ELF file that does not say which guest it is");
  }
  return *name;
}

Performance performanceOf(const std::string& guest, const Props& props) {
  using schema::EndCause;
  if (guest == "poweroff") {
    return poweringOff("");
  }
  if (guest == "hello") {
    return poweringOff("hello from the guest\ngood bye\n");
  }
  if (guest == "cmdline") {
    return poweringOff("cmdline: " + props.commandLine + "\n");
  }
  if (guest == "modules") {
    return poweringOff(modules(props.initrd.get()));
  }
  if (guest == "memory_touch") {
    return poweringOff(touched(props.memoryBytes));
  }
  if (guest == "flood") {
    return poweringOff(flood(512));
  }
  if (guest == "port_io") {
    Performance performance = poweringOff(threeReads("port") + "port writes done\n");
    performance.unknownPortReads = performance.unknownPortWrites = 3;
    performance.exits += 6;
    performance.portExits += 6;
    return performance;
  }
  if (guest == "memory_io") {
    Performance performance = poweringOff(threeReads("mmio") + "mmio writes done\n");
    performance.unknownMmio = performance.mmioExits = 6;
    performance.exits += 6;
    return performance;
  }
  if (guest == "reset") {
    Performance performance = ending(EndCause::RESET, "the guest asked for a reset");
    performance.portExits = 1;
    return performance;
  }
  if (guest == "triple_fault") {
    return ending(EndCause::TRIPLE_FAULT, "virtual CPU 0: triple fault");
  }
  if (guest == "internal_error") {
    return ending(EndCause::CRASH, "an instruction outside memory on virtual CPU 0", "leaving memory\n");
  }
  if (guest == "loop") {
    Performance performance = poweringOff("looping\n");  // if the power button is pressed
    performance.then = Performance::Then::kLoop;
    return performance;
  }
  if (guest == "chatter") {
    constexpr std::uint32_t kAtATime = 1024;
    constexpr std::uint32_t kLines = 6144;
    Performance performance = poweringOff(flood(kAtATime) + "more?\n");
    for (std::uint32_t line = kAtATime; line < kLines; line += kAtATime) {
      const char* last = line + kAtATime < kLines ? "more?\n" : "said it all\n";
      performance.further.push_back(flood(kAtATime, line) + last);
    }
    performance.then = Performance::Then::kLoop;
    return performance;
  }
  if (guest == "ticker") {
    Performance performance = poweringOff("");
    performance.then = Performance::Then::kCount;
    return performance;
  }
  if (guest == "smp") {
    return poweringOff("processors 1\n");
  }
  if (guest == "serial_echo") {
    Performance performance = poweringOff("echo ready\n");
    performance.then = Performance::Then::kEcho;
    performance.lastWords = "echo done\n";
    return performance;
  }
  throw Error(ErrorCode::kUnsupported, "boot.kernel: the fake backend does not play the guest " + guest,
              "write it down in tests/fake/performance.cc");
}

}  // namespace vmmhost::fake
