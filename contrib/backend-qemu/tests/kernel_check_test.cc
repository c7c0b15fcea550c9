#include "worker/kernel_check.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "tests/tiny_guest.h"
#include "vmmhost/error.h"

namespace qemubackend {
namespace {

using vmmhost::Error;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::string refusal(const std::string& image, std::uint64_t memoryBytes = 64 * kMiB) {
  try {
    checkKernel(test::memoryFile(image), memoryBytes);
  } catch (const Error& error) {
    EXPECT_EQ(error.message().rfind("boot.kernel: ", 0), 0u) << error.message();
    return error.message();
  }
  return "accepted";
}

std::string guest() {
  return test::guestImage(test::powerOff());
}

// The image with its headers changed: load is the first program header, note the second.
std::string changed(const std::function<void(Elf32_Ehdr& file, Elf32_Phdr& load, Elf32_Phdr& note)>& change) {
  std::string image = guest();
  Elf32_Ehdr file;
  Elf32_Phdr headers[2];
  std::memcpy(&file, image.data(), sizeof(file));
  std::memcpy(headers, image.data() + sizeof(file), sizeof(headers));
  change(file, headers[0], headers[1]);
  std::memcpy(image.data(), &file, sizeof(file));
  std::memcpy(image.data() + sizeof(file), headers, sizeof(headers));
  return image;
}

void expectRefusal(const std::string& image, const std::string& part, std::uint64_t memoryBytes = 64 * kMiB) {
  const std::string said = refusal(image, memoryBytes);
  EXPECT_NE(said.find(part), std::string::npos) << said;
}

std::string bzImage(std::uint8_t sectors, std::uint32_t paragraphs, std::size_t size) {
  std::string image(size, '\0');
  image[0x1f1] = static_cast<char>(sectors);
  std::memcpy(image.data() + 0x1f4, &paragraphs, sizeof(paragraphs));
  image.replace(0x1fe, 2, "\x55\xaa");
  image.replace(0x202, 4, "HdrS");
  return image;
}

TEST(KernelCheckTest, whatBoots_isAccepted) {
  EXPECT_EQ(checkKernel(test::memoryFile(guest()), 64 * kMiB), kMiB + test::powerOff().size());
  EXPECT_EQ(refusal(bzImage(1, 2, 1024 + 32)), "accepted");
  EXPECT_EQ(refusal(bzImage(0, 2, 5 * 512 + 32)), "accepted");
}

TEST(KernelCheckTest, everyTruncation_isRefused) {
  const std::string image = guest();
  for (std::size_t length = 0; length < image.size(); ++length) {
    EXPECT_NE(refusal(image.substr(0, length)), "accepted") << length;
  }
  expectRefusal(bzImage(1, 2, 1024 + 31), "cut short: it has 1055 of 1056 bytes");
  expectRefusal(bzImage(4, 0xffffffff, 4096), "cut short");
  expectRefusal(std::string(4096, '\0'), "neither an ELF file nor");
}

TEST(KernelCheckTest, kernelsOfOtherProcessors_areRefused) {
  expectRefusal(changed([](auto& file, auto&, auto&) { file.e_machine = EM_AARCH64; }), "machine 183");
  expectRefusal(changed([](auto& file, auto&, auto&) { file.e_machine = EM_ARM; }), "machine 40");
  expectRefusal(changed([](auto& file, auto&, auto&) { file.e_ident[EI_DATA] = ELFDATA2MSB; }), "another processor");
}

TEST(KernelCheckTest, hostileHeaders_areRefused) {
  expectRefusal(changed([](auto& file, auto&, auto&) { file.e_phnum = 0xffff; }), "65535 program headers");
  expectRefusal(changed([](auto& file, auto&, auto&) { file.e_phentsize = 1; }), "of 1 bytes");
  expectRefusal(changed([](auto& file, auto&, auto&) { file.e_phoff = 0xffffffff; }), "program headers lie beyond");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_type = PT_NULL; }), "no segment to load");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_offset = 0xffffffff; }), "beyond the end of the file");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_filesz = 0xffffffff; }), "beyond the end of the file");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_memsz = 1; }), "more bytes in the file than in memory");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_paddr = 0x7000; }), "below 1 MiB");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_paddr = 0xfee00000; }), "outside the guest's memory");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_paddr = 0xfee00000; }), "outside the guest's memory",
                6 * 1024 * kMiB);
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_memsz = 0xffffffff; }), "outside the guest's memory");
  expectRefusal(changed([](auto&, auto& load, auto&) { load.p_paddr = 0x200000; }), "entry point lies outside");
  expectRefusal(changed([](auto&, auto&, auto& note) { note.p_filesz = 0xffffffff; }), "more than 65536 bytes");
  expectRefusal(changed([](auto&, auto&, auto& note) { note.p_offset = 0xffffffff; }), "beyond the end of the file");
  expectRefusal(changed([](auto&, auto&, auto& note) { note.p_filesz = 8; }), "without a PVH note");
  expectRefusal(changed([](auto&, auto& load, auto& note) { note = load; }), "two segments overlap");
  expectRefusal(test::guestImage(test::powerOff(), false), "without a PVH note");
}

// Whatever the bytes are, there is an answer, and what is accepted lies in memory.
TEST(KernelCheckTest, mutatedFiles_neverBreakTheRules) {
  std::minstd_rand random(11);
  const std::string sound = guest();
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string image = sound;
    for (int change = 0; change < 3; ++change) {
      image[random() % image.size()] = static_cast<char>(random());
    }
    try {
      EXPECT_LE(checkKernel(test::memoryFile(image), 64 * kMiB), 64 * kMiB);
      ++accepted;
    } catch (const Error& error) {
      EXPECT_EQ(error.message().rfind("boot.kernel: ", 0), 0u) << error.message();
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 4900);
}

TEST(KernelCheckTest, initrdThatDoesNotFit_isRefused) {
  const vmmhost::Fd initrd = test::memoryFile(std::string(10 * kMiB, 'x'));
  EXPECT_NO_THROW(checkInitrd(initrd, 16 * kMiB, 2 * kMiB));
  for (const auto& [memory, kernelEnd] : {std::pair(16 * kMiB, 6 * kMiB), {10 * kMiB, kMiB}, {8 * kMiB, 64 * kMiB}}) {
    try {
      checkInitrd(initrd, memory, kernelEnd);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.message(), "boot.initrd: 10485760 bytes do not fit into " + std::to_string(memory / kMiB) +
                                     " MiB of memory beside the kernel");
    }
  }
}

}  // namespace
}  // namespace qemubackend
