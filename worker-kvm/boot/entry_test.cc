// Enters what load() left in memory on the real /dev/kvm: bare machine code that tells by a port what it sees.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/arch/x86_64/registers.h"
#include "worker-kvm/boot/load.h"
#include "worker-kvm/boot/test_bzimage.h"
#include "worker-kvm/kvm/device.h"

namespace vmmhost::kvm::boot {
namespace {

class EntryTest : public testing::Test {
 protected:
  void SetUp() override {
    const int fd = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
      std::cerr << "\n*** /dev/kvm cannot be opened: NOTHING of the entry is tested here ***\n" << std::endl;
      GTEST_SKIP() << "/dev/kvm cannot be opened";
    }
    device_.emplace(Fd(fd));
  }

  static std::unique_ptr<FileSource> file(const std::vector<std::uint8_t>& bytes) {
    Fd memfd(::memfd_create("test", MFD_CLOEXEC));
    EXPECT_EQ(::write(memfd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    return std::make_unique<FileSource>(std::move(memfd), "kernel");
  }

  // What the code writes to port 0x600, 4 bytes, before it stops.
  std::uint32_t answer(const BootFiles& files) {
    memory::GuestMemory memory(arch::memoryRanges(64 << 20));
    const arch::EntryState entry = load(files, {}, memory, true);
    Vm vm = device_->createVm();
    vm.setReservedPages(arch::kIdentityMap, arch::kTaskState);
    vm.setMemory(0, 0, memory.regions().front().host);
    Vcpu vcpu = vm.createVcpu(0, device_->vcpuMapBytes());
    vcpu.setCpuid(device_->supportedCpuid());
    arch::setFirmwareMsrs(vcpu);
    vcpu.setSpecialRegisters(arch::entrySpecialRegisters(entry, vcpu.specialRegisters()));
    vcpu.setRegisters(arch::entryRegisters(entry));
    EXPECT_EQ(vcpu.run(), 0);
    const kvm_run& state = vcpu.state();
    EXPECT_EQ(state.exit_reason, static_cast<std::uint32_t>(KVM_EXIT_IO)) << std::hex << vcpu.registers().rip;
    EXPECT_EQ(state.io.port, arch::kPowerPort);
    EXPECT_EQ(state.io.size, 4);
    std::uint32_t value = 0;
    std::memcpy(&value, reinterpret_cast<const std::uint8_t*>(&state) + state.io.data_offset, sizeof value);
    return value;
  }

  std::optional<Device> device_;
};

// Only long mode and a stack get this to the end: a 64-bit register, pushed, popped, shifted down.
const std::vector<std::uint8_t> kLongModeCode = {
    0x48, 0xb8, 0,    0,    0, 0, 0x34, 0x12, 0, 0,  // mov rax, 0x0000123400000000
    0x50,                                            // push rax
    0x5b,                                            // pop rbx
    0x48, 0xc1, 0xeb, 0x20,                          // shr rbx, 32
    0x8b, 0x86, 0x02, 0x02, 0, 0,                    // mov eax, [rsi + 0x202]
    0x31, 0xd8,                                      // xor eax, ebx
    0x66, 0xba, 0x00, 0x06,                          // mov dx, 0x600
    0xef,                                            // out dx, eax
    0xf4,                                            // hlt
};
constexpr std::uint32_t kLongModeAnswer = 0x53726448 ^ 0x1234;  // "HdrS" of the zero page

TEST_F(EntryTest, bzImage_runsInLongModeWithTheZeroPage) {
  BootFiles files;
  files.kernel = file(TestBzImage(kLongModeCode).bytes());
  EXPECT_EQ(answer(files), kLongModeAnswer);
}

// The descriptor table is there for whom loads a segment: a far return to __BOOT_CS, a data segment of __BOOT_DS.
TEST_F(EntryTest, bzImageThatLoadsSegments_findsTheDescriptors) {
  BootFiles files;
  files.kernel = file(TestBzImage({
                                      0xb8, 0x18, 0,    0,    0,        // mov eax, __BOOT_DS
                                      0x8e, 0xd8,                       // mov ds, eax
                                      0x6a, 0x10,                       // push __BOOT_CS
                                      0x48, 0x8d, 0x05, 3,    0, 0, 0,  // lea rax, [rip + 3]
                                      0x50,                             // push rax
                                      0x48, 0xcb,                       // retfq
                                      0x8c, 0xc8,                       // mov eax, cs
                                      0x66, 0xba, 0x00, 0x06,           // mov dx, 0x600
                                      0xef,                             // out dx, eax
                                      0xf4,                             // hlt
                                  })
                          .bytes());
  EXPECT_EQ(answer(files), 0x10U);
}

// An ELF file of one segment at 1 MiB, with the code at its entry and no note.
std::vector<std::uint8_t> elfOf(const std::vector<std::uint8_t>& code) {
  const std::vector<std::uint64_t> words = {
      0x00010102464c457f,
      0,
      0x00000001003e0002,
      0x100000,
      64,
      0,
      0x0038004000000000,
      1,  // the header
      0x0000000700000001,
      120,
      0x100000,
      0x100000,
      256,
      256,
      4096,  // PT_LOAD
  };
  std::vector<std::uint8_t> bytes(words.size() * 8 + 256);
  std::memcpy(bytes.data(), words.data(), words.size() * 8);
  std::copy(code.begin(), code.end(), bytes.begin() + static_cast<std::ptrdiff_t>(words.size() * 8));
  return bytes;
}

TEST_F(EntryTest, elfWithoutANote_runsInLongModeWithTheZeroPage) {
  BootFiles files;
  files.kernel = file(elfOf(kLongModeCode));
  EXPECT_EQ(answer(files), kLongModeAnswer);
}

}  // namespace
}  // namespace vmmhost::kvm::boot
