#include "worker-kvm/vm/vcpu_runner.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "vmmhost/seccomp.h"

namespace vmmhost::kvm::vm {

using counters::Cell;

VcpuRunner::VcpuRunner(std::uint32_t index, Vcpu vcpu, const Context& context)
    : index_(index), vcpu_(std::move(vcpu)), context_(context) {
}

VcpuRunner::~VcpuRunner() {
  if (thread_) {
    kick();
    thread_.reset();
  }
}

void VcpuRunner::startThread(std::vector<sock_filter> filter) {
  thread_ = std::make_unique<threads::Thread>("vcpu" + std::to_string(index_),
                                              [this, filter = std::move(filter)] { threadMain(filter); });
}

void VcpuRunner::kick() noexcept {
  // The flag is for a thread that is on its way into KVM_RUN, the signal for one that is inside.
  vcpu_.setImmediateExit(true);
  thread_->kick();
}

void VcpuRunner::threadMain(const std::vector<sock_filter>& filter) {
  if (!filter.empty() && seccomp::install(filter, false) != 0) {
    std::abort();  // never run a guest without the filter
  }
  while (context_.control.waitToRun()) {
    runGuest();
  }
}

// Nothing below allocates memory: an exit takes no lock of the heap.
void VcpuRunner::runGuest() noexcept {
  while (true) {
    vcpu_.setImmediateExit(false);
    // Looked at after the flag was cleared: a kick either leaves the flag set or has made mayRun false before.
    if (!context_.control.mayRun()) {
      break;
    }
    const int error = vcpu_.run();
    if (error == 0) {
      handleExit();
    } else if (error != EINTR && error != EAGAIN) {
      end(EndCause::kCrash, "KVM_RUN failed with errno %d", error);
    }
  }
  // Carries out what is half done, so that the registers are whole: a read whose value KVM has not stored yet, or a
  // string instruction, each step of which is an exit of its own. KVM leaves such an instruction after 1024 steps.
  vcpu_.setImmediateExit(true);
  while (vcpu_.run() == 0) {
    handleExit();
  }
}

void VcpuRunner::handleExit() noexcept {
  const kvm_run& run = vcpu_.state();
  context_.counters.add(Cell::kVcpuExits);
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      handlePortAccess();
      break;
    case KVM_EXIT_MMIO:
      handleMemoryAccess();
      break;
    case KVM_EXIT_SHUTDOWN:
      end(EndCause::kTripleFault, "virtual CPU %u: triple fault", index_);
      break;
    case KVM_EXIT_INTERNAL_ERROR:
      handleInternalError();
      break;
    case KVM_EXIT_FAIL_ENTRY:
      end(EndCause::kCrash, "KVM could not enter the guest: hardware reason 0x%llx on virtual CPU %u",
          static_cast<unsigned long long>(run.fail_entry.hardware_entry_failure_reason), index_);
      break;
    case KVM_EXIT_SYSTEM_EVENT:
      if (run.system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN) {
        end(EndCause::kPowerOff, "system event: shutdown");
      } else if (run.system_event.type == KVM_SYSTEM_EVENT_RESET) {
        end(EndCause::kReset, "system event: reset");
      } else {
        end(EndCause::kPanic, "system event %u", run.system_event.type);
      }
      break;
    case KVM_EXIT_HLT:  // only without a local APIC in the kernel, which there always is
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_IOAPIC_EOI:
      context_.counters.add(Cell::kHaltExits, run.exit_reason == KVM_EXIT_HLT ? 1 : 0);
      break;
    default:
      end(EndCause::kCrash, "KVM left the guest for an unexpected reason: exit %u", run.exit_reason);
      break;
  }
}

void VcpuRunner::handlePortAccess() noexcept {
  kvm_run& run = vcpu_.state();
  context_.counters.add(Cell::kPioExits);
  const auto& io = run.io;
  // The kernel puts the data behind the struct, on the next page.
  std::uint8_t* data = reinterpret_cast<std::uint8_t*>(&run) + io.data_offset;
  for (std::uint32_t number = 0; number < io.count; ++number, data += io.size) {
    const std::span<std::uint8_t> access(data, io.size);
    if (io.direction == KVM_EXIT_IO_OUT) {
      if (!context_.ports.write(io.port, access)) {
        context_.counters.add(Cell::kUnknownPortWrites);
      }
    } else if (!context_.ports.read(io.port, access)) {
      context_.counters.add(Cell::kUnknownPortReads);
    }
  }
}

void VcpuRunner::handleMemoryAccess() noexcept {
  auto& access = vcpu_.state().mmio;
  context_.counters.add(Cell::kMmioExits);
  const std::span<std::uint8_t> data(access.data, std::min<std::size_t>(access.len, sizeof access.data));
  const bool known = access.is_write != 0 ? context_.memory.write(access.phys_addr, data)
                                          : context_.memory.read(access.phys_addr, data);
  if (!known) {
    context_.counters.add(Cell::kUnknownMmio);
  }
}

void VcpuRunner::handleInternalError() noexcept {
  const auto& internal = vcpu_.state().internal;
  const char* kind = "";
  switch (internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      kind = " (an instruction that KVM cannot emulate)";
      break;
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      kind = " (exceptions at the same time)";
      break;
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      kind = " (an exit while an event was delivered)";
      break;
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      kind = " (an exit that KVM does not know)";
      break;
    default:
      break;
  }
  end(EndCause::kCrash, "KVM internal error, suberror %u%s on virtual CPU %u", internal.suberror, kind, index_);
}

void VcpuRunner::end(EndCause cause, const char* format, ...) noexcept {
  EndReport report;
  report.cause = cause;
  report.cpu = index_;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(report.detail.data(), report.detail.size(), format, arguments);
  va_end(arguments);
  context_.control.end(report);
}

}  // namespace vmmhost::kvm::vm
