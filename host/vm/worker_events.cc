#include "host/vm/worker_events.h"

#include <utility>

#include "host/base/text.h"

namespace vmmhost::vm {
namespace {

using schema::EndCause;
using schema::EndKind;
using schema::VmState;

constexpr std::size_t kMostTimings = 64;

// Cloud Hypervisor's docs/debug-port.md gives two of the values a meaning.
std::string bootPhaseName(unsigned value) {
  switch (value) {
    case 0x40:
      return "guest-kernel";
    case 0x41:
      return "guest-init";
    default:
      return "boot-phase-" + std::to_string(value);
  }
}

std::string rateText() {
  return std::to_string(EventRate::kBurst) + " at a time and " + std::to_string(EventRate::kPerSecond) + " a second";
}

}  // namespace

// It may outlive the VM in the RPC system, so it only reaches it while it lives.
class WorkerEvents::Sink final : public schema::EventSink::Server {
 public:
  Sink(std::shared_ptr<WorkerEvents*> events, kj::Timer& timer) : events_(std::move(events)), timer_(timer) {}

  // Not one call at a time, as streams have it: an end is not to wait behind answers that are held back.
  DispatchCallResult dispatchCall(std::uint64_t interfaceId, std::uint16_t methodId,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    auto result = schema::EventSink::Server::dispatchCall(interfaceId, methodId, context);
    result.isStreaming = false;
    return result;
  }
  kj::Promise<void> event(EventContext context) override {
    if (*events_ == nullptr) {
      return kj::READY_NOW;
    }
    const kj::Duration wait = (*events_)->note(context.getParams().getEvent());
    if (wait == 0 * kj::NANOSECONDS) {
      return kj::READY_NOW;
    }
    if (++*heldBack_ > kMostHeldBack) {
      (*events_)->blame();
    }
    return timer_.afterDelay(wait).attach(kj::defer([heldBack = heldBack_]() { --*heldBack; }));
  }

 private:
  // Answers. The SDK's window for events is about 32 calls, and the connection bears 64.
  static constexpr unsigned kMostHeldBack = 48;

  std::shared_ptr<WorkerEvents*> events_;
  kj::Timer& timer_;
  std::shared_ptr<unsigned> heldBack_ = std::make_shared<unsigned>(0);
};

WorkerEvents::WorkerEvents(kj::Timer& timer, Log& log, Life& life, schema::VmConfig::Reader config,
                           std::function<void(End)> end)
    : timer_(timer),
      life_(life),
      config_(config),
      end_(std::move(end)),
      self_(std::make_shared<WorkerEvents*>(this)),
      rate_(timer.now()),
      panicRate_(timer.now()),
      resetLines_(log, Severity::kInfo, "vm"),
      panicLines_(log, Severity::kWarning, "guest"),
      fullDiskLines_(log, Severity::kWarning, "disk") {
}

WorkerEvents::~WorkerEvents() {
  *self_ = nullptr;
}

schema::EventSink::Client WorkerEvents::sink() {
  return kj::heap<Sink>(self_, timer_);
}

void WorkerEvents::finish() {
  for (FewLines* lines : {&resetLines_, &panicLines_, &fullDiskLines_}) {
    lines->tellOthers();
  }
}

kj::Duration WorkerEvents::note(schema::Event::Reader event) {
  constexpr kj::Duration kAtOnce = 0 * kj::NANOSECONDS;
  if (life_.isEnding()) {
    return kAtOnce;  // an end is told once; whatever comes after it is of no interest
  }
  const kj::TimePoint now = timer_.now();
  switch (event.which()) {
    case schema::Event::ENDED:
      noteEnd(event.getEnded());
      return kAtOnce;
    case schema::Event::RESET_DONE:
      resetLines_.write(now, "was reset");
      break;
    case schema::Event::GUEST_PANICKED:
      if (panicRate_.take(now) > kAtOnce) {
        end_({EndKind::GUEST, EndCause::PANIC, "the guest told of panics without end, more than " + rateText(),
              std::nullopt});
        return kAtOnce;
      }
      panicLines_.write(now, event.getGuestPanicked().cStr());
      break;
    case schema::Event::DISK_FULL:
      noteFullDisk(event.getDiskFull(), now);
      break;
    case schema::Event::BOOT_PHASE:
      if (life_.timings().size() < kMostTimings) {
        life_.addTiming(bootPhaseName(event.getBootPhase().getValue()), event.getBootPhase().getMonotonicNs());
      }
      break;
  }
  return rate_.take(now);
}

void WorkerEvents::noteEnd(schema::Event::Ended::Reader ended) {
  auto cause = ended.getCause();
  if (cause > EndCause::WORKER_FAULT) {
    cause = EndCause::UNKNOWN;
  }
  life_.mark("guest-ended");
  if (life_.state() == VmState::CREATED) {
    life_.setState(VmState::RUNNING);  // its end has overtaken the answer to start
  }
  end_({EndKind::GUEST, cause, printable(std::string_view(ended.getDetail().cStr()), 4096), std::nullopt});
}

void WorkerEvents::noteFullDisk(std::uint32_t index, kj::TimePoint now) {
  const auto disks = config_.getDisks();
  if (index >= disks.size()) {
    return;  // a worker may say anything
  }
  fullDiskLines_.write(now, "disks[" + std::to_string(index) +
                                "]: " + printable(disks[index].getFile().getPath().cStr(), 1024) +
                                ": its file system is full: the guest gets errors for what it writes");
}

void WorkerEvents::blame() {
  end_({EndKind::WORKER_DIED, EndCause::WORKER_FAULT, "the worker sent more events than any VM needs",
        Error(ErrorCode::kProtocol,
              "the worker sent more events than " + rateText() + ", and did not wait for the answers")});
}

}  // namespace vmmhost::vm
