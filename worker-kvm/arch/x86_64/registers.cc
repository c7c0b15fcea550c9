#include "worker-kvm/arch/x86_64/registers.h"

#include <array>

#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::arch {

namespace {

constexpr std::uint64_t kCr0ProtectedMode = 1U << 0;
constexpr std::uint64_t kCr0ExtensionType = 1U << 4;
constexpr std::uint64_t kFlagsAlwaysOne = 1U << 1;

// Segment types of the Intel SDM, volume 3, 3.4.5.1 and 3.5.
constexpr std::uint8_t kTypeCode = 11;  // execute, read, accessed
constexpr std::uint8_t kTypeData = 3;   // read, write, accessed
constexpr std::uint8_t kTypeTask = 11;  // busy 32-bit task state

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

// Reset values of model-specific registers; 0 unless said. Names are those of the Intel SDM, volume 4, and of Linux's
// Documentation/virt/kvm/x86/msr.rst.
constexpr std::array<kvm_msr_entry, 24> kMsrs = {{
    {0x174, 0, 0},                   // IA32_SYSENTER_CS
    {0x175, 0, 0},                   // IA32_SYSENTER_ESP
    {0x176, 0, 0},                   // IA32_SYSENTER_EIP
    {0x277, 0, 0x0007040600070406},  // IA32_PAT
    {0x2ff, 0, 0},                   // IA32_MTRR_DEF_TYPE
    {0x6e0, 0, 0},                   // IA32_TSC_DEADLINE
    {0xda0, 0, 0},                   // IA32_XSS
    {0xc0000081, 0, 0},              // STAR
    {0xc0000082, 0, 0},              // LSTAR
    {0xc0000083, 0, 0},              // CSTAR
    {0xc0000084, 0, 0},              // SFMASK
    {0xc0000102, 0, 0},              // KERNEL_GS_BASE
    {0xc0000103, 0, 0},              // TSC_AUX
    {0x48, 0, 0},                    // IA32_SPEC_CTRL
    {0x11, 0, 0},                    // MSR_KVM_WALL_CLOCK
    {0x12, 0, 0},                    // MSR_KVM_SYSTEM_TIME
    {0x4b564d00, 0, 0},              // MSR_KVM_WALL_CLOCK_NEW
    {0x4b564d01, 0, 0},              // MSR_KVM_SYSTEM_TIME_NEW
    {0x4b564d02, 0, 0},              // MSR_KVM_ASYNC_PF_EN
    {0x4b564d03, 0, 0},              // MSR_KVM_STEAL_TIME
    {0x4b564d04, 0, 0},              // MSR_KVM_EOI_EN
    {0x4b564d05, 0, 1},              // MSR_KVM_POLL_CONTROL
    {0x4b564d06, 0, 0},              // MSR_KVM_ASYNC_PF_INT
    {0x10, 0, 0},                    // IA32_TIME_STAMP_COUNTER
}};

}  // namespace

kvm_regs pvhRegisters(std::uint32_t entry) {
  kvm_regs registers{};
  registers.rip = entry;
  registers.rflags = kFlagsAlwaysOne;
  registers.rbx = kStartInfo;
  return registers;
}

kvm_sregs pvhSpecialRegisters(const kvm_sregs& base) {
  kvm_sregs registers = base;
  registers.cs = flatSegment(kTypeCode, 0x08);
  const kvm_segment data = flatSegment(kTypeData, 0x10);
  registers.ds = registers.es = registers.fs = registers.gs = registers.ss = data;
  registers.tr = flatSegment(kTypeTask, 0x18);
  registers.tr.limit = 0x67;
  registers.tr.s = 0;
  registers.tr.g = 0;
  registers.tr.db = 0;
  registers.gdt = {};
  registers.idt = {};
  registers.cr0 = kCr0ProtectedMode | kCr0ExtensionType;
  registers.cr2 = registers.cr3 = registers.cr4 = 0;
  registers.efer = 0;
  return registers;
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
