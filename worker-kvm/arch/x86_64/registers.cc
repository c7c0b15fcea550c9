#include "worker-kvm/arch/x86_64/registers.h"

#include <array>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::arch {

namespace {

// Control registers and EFER of the Intel SDM, volume 3, 2.5 and 2.2.1.
constexpr std::uint64_t kCr0ProtectedMode = 1U << 0;
constexpr std::uint64_t kCr0ExtensionType = 1U << 4;
constexpr std::uint64_t kCr0Paging = 1U << 31;
constexpr std::uint64_t kCr4PhysicalAddressExtension = 1U << 5;
constexpr std::uint64_t kEferLongModeEnable = 1U << 8;
constexpr std::uint64_t kEferLongModeActive = 1U << 10;
constexpr std::uint64_t kFlagsAlwaysOne = 1U << 1;

// Segment types of the Intel SDM, volume 3, 3.4.5.1 and 3.5.
constexpr std::uint8_t kTypeCode = 11;  // execute, read, accessed
constexpr std::uint8_t kTypeData = 3;   // read, write, accessed
constexpr std::uint8_t kTypeTask = 11;  // busy task state

kvm_segment flatSegment(std::uint8_t type, std::uint16_t selector) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.db = 1;
  segment.s = 1;
  segment.g = 1;
  return segment;
}

kvm_segment taskSegment(std::uint16_t selector) {
  kvm_segment segment{};
  segment.limit = 0x67;
  segment.selector = selector;
  segment.type = kTypeTask;
  segment.present = 1;
  return segment;
}

void setData(kvm_sregs& registers, const kvm_segment& data) {
  registers.ds = registers.es = registers.fs = registers.gs = registers.ss = data;
}

// boot.rst, 64-bit Boot Protocol: __BOOT_CS is 0x10, __BOOT_DS 0x18.
void enterLongMode(kvm_sregs& registers) {
  registers.cs = flatSegment(kTypeCode, kBootCodeSelector);
  registers.cs.l = 1;
  registers.cs.db = 0;
  setData(registers, flatSegment(kTypeData, kBootDataSelector));
  registers.tr = taskSegment(kBootTaskSelector);
  registers.gdt.base = kGdt;
  registers.gdt.limit = kGdtBytes - 1;
  registers.cr0 |= kCr0Paging;
  registers.cr3 = kPageMapLevel4;
  registers.cr4 = kCr4PhysicalAddressExtension;
  registers.efer = kEferLongModeEnable | kEferLongModeActive;
}

// Any selectors: a PVH kernel brings its own descriptor table.
void enterProtectedMode(kvm_sregs& registers) {
  registers.cs = flatSegment(kTypeCode, 0x08);
  setData(registers, flatSegment(kTypeData, 0x10));
  registers.tr = taskSegment(0x18);
}

// IA32_MTRR_DEF_TYPE: MTRRs on, write-back (Intel SDM, volume 3, 12.11.2.1). IA32_MISC_ENABLE: fast string operations.
constexpr kvm_msr_entry kDefaultMemoryType = {0x2ff, 0, 1U << 11 | 6};
constexpr kvm_msr_entry kMiscEnable = {0x1a0, 0, 1U << 0};

// Reset values of model-specific registers; 0 unless said. Names are those of the Intel SDM, volume 4, and of Linux's
// Documentation/virt/kvm/x86/msr.rst.
constexpr std::array<kvm_msr_entry, 25> kMsrs = {{
    {0x174, 0, 0},                   // IA32_SYSENTER_CS
    {0x175, 0, 0},                   // IA32_SYSENTER_ESP
    {0x176, 0, 0},                   // IA32_SYSENTER_EIP
    {0x277, 0, 0x0007040600070406},  // IA32_PAT
    kDefaultMemoryType,
    kMiscEnable,
    {0x6e0, 0, 0},       // IA32_TSC_DEADLINE
    {0xda0, 0, 0},       // IA32_XSS
    {0xc0000081, 0, 0},  // STAR
    {0xc0000082, 0, 0},  // LSTAR
    {0xc0000083, 0, 0},  // CSTAR
    {0xc0000084, 0, 0},  // SFMASK
    {0xc0000102, 0, 0},  // KERNEL_GS_BASE
    {0xc0000103, 0, 0},  // TSC_AUX
    {0x48, 0, 0},        // IA32_SPEC_CTRL
    {0x11, 0, 0},        // MSR_KVM_WALL_CLOCK
    {0x12, 0, 0},        // MSR_KVM_SYSTEM_TIME
    {0x4b564d00, 0, 0},  // MSR_KVM_WALL_CLOCK_NEW
    {0x4b564d01, 0, 0},  // MSR_KVM_SYSTEM_TIME_NEW
    {0x4b564d02, 0, 0},  // MSR_KVM_ASYNC_PF_EN
    {0x4b564d03, 0, 0},  // MSR_KVM_STEAL_TIME
    {0x4b564d04, 0, 0},  // MSR_KVM_EOI_EN
    {0x4b564d05, 0, 1},  // MSR_KVM_POLL_CONTROL
    {0x4b564d06, 0, 0},  // MSR_KVM_ASYNC_PF_INT
    {0x10, 0, 0},        // IA32_TIME_STAMP_COUNTER
}};

}  // namespace

kvm_regs entryRegisters(const EntryState& entry) {
  kvm_regs registers{};
  registers.rip = entry.address;
  registers.rflags = kFlagsAlwaysOne;
  if (entry.mode == EntryMode::kPvh) {
    registers.rbx = kStartInfo;
  } else {
    registers.rsi = kZeroPage;
    registers.rsp = registers.rbp = kBootStack;
  }
  return registers;
}

kvm_sregs entrySpecialRegisters(const EntryState& entry, const kvm_sregs& base) {
  kvm_sregs registers = base;
  registers.gdt = {};
  registers.idt = {};
  registers.cr0 = kCr0ProtectedMode | kCr0ExtensionType;
  registers.cr2 = registers.cr3 = registers.cr4 = 0;
  registers.efer = 0;
  if (entry.mode == EntryMode::kPvh) {
    enterProtectedMode(registers);
  } else {
    enterLongMode(registers);
  }
  return registers;
}

void setFirmwareMsrs(Vcpu& vcpu) {
  vcpu.setKnownMsrs(std::array{kDefaultMemoryType, kMiscEnable});
}

void resetHiddenState(Vcpu& vcpu) {
  kvm_fpu fpu{};
  fpu.fcw = 0x37f;  // Intel SDM, volume 3, table 9-1 after FNINIT
  fpu.mxcsr = 0x1f80;
  vcpu.setFpu(fpu);
  kvm_debugregs debug{};
  debug.dr6 = 0xffff0ff0;
  debug.dr7 = 0x400;
  vcpu.setDebugRegisters(debug);
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW;
  vcpu.setEvents(events);
  vcpu.setKnownMsrs(kMsrs);
}

}  // namespace vmmhost::kvm::arch
