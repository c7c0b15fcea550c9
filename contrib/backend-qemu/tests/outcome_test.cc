#include "worker/outcome.h"

#include <gtest/gtest.h>

namespace qemubackend {
namespace {

using Next = OutcomeTracker::Next;
using vmmhost::schema::EndCause;

QmpMessage event(std::string name, std::string reason = {}) {
  QmpMessage message;
  message.name = std::move(name);
  message.reason = std::move(reason);
  return message;
}

constexpr ProcessEnd kExitedZero = {ProcessEnd::Kind::kExited, 0};

EndCause causeOf(const std::string& reason) {
  OutcomeTracker tracker;
  EXPECT_EQ(tracker.note(event("SHUTDOWN", reason)), Next::kAwaitExit);
  return tracker.finish(kExitedZero, "").cause;
}

TEST(OutcomeTest, shutdownReasons_areMapped) {
  EXPECT_EQ(causeOf("guest-shutdown"), EndCause::POWER_OFF);
  EXPECT_EQ(causeOf("guest-reset"), EndCause::RESET);
  EXPECT_EQ(causeOf("guest-panic"), EndCause::PANIC);
  EXPECT_EQ(causeOf("host-signal"), EndCause::WORKER_FAULT);
  EXPECT_EQ(causeOf("host-error"), EndCause::WORKER_FAULT);
  EXPECT_EQ(causeOf(""), EndCause::WORKER_FAULT);
}

TEST(OutcomeTest, panicBeforeShutdown_staysAPanic) {
  OutcomeTracker tracker;
  tracker.note(event("GUEST_PANICKED"));
  tracker.note(event("SHUTDOWN", "guest-shutdown"));
  EXPECT_EQ(tracker.finish(kExitedZero, "").cause, EndCause::PANIC);
}

TEST(OutcomeTest, firstShutdownCounts) {
  OutcomeTracker tracker;
  tracker.note(event("SHUTDOWN", "guest-reset"));
  tracker.note(event("SHUTDOWN", "guest-shutdown"));
  EXPECT_EQ(tracker.finish(kExitedZero, "").cause, EndCause::RESET);
}

TEST(OutcomeTest, stopOfItsOwn_isAskedAbout) {
  OutcomeTracker tracker;
  EXPECT_EQ(tracker.note(event("STOP")), Next::kAskStatus);
  EXPECT_FALSE(tracker.noteStatus("paused"));
  EXPECT_TRUE(tracker.noteStatus("internal-error"));
  const Outcome end = tracker.finish({ProcessEnd::Kind::kSignalled, 9}, "KVM internal error");
  EXPECT_EQ(end.cause, EndCause::CRASH);
  EXPECT_NE(end.detail.find("KVM internal error"), std::string::npos);
}

TEST(OutcomeTest, diskThatStopsTheMachine_isACrash) {
  OutcomeTracker tracker;
  EXPECT_EQ(tracker.note(event("STOP")), Next::kAskStatus);
  EXPECT_TRUE(tracker.noteStatus("io-error"));
  EXPECT_EQ(tracker.finish(kExitedZero, "").cause, EndCause::CRASH);
}

TEST(OutcomeTest, errorOfADisk_isNoEnd_andTellsWhereTheHostIsFull) {
  QmpMessage error = event("BLOCK_IO_ERROR", "No space left on device");
  error.node = "disk3";
  EXPECT_EQ(fullDisk(error), 3u);
  EXPECT_EQ(OutcomeTracker().note(error), Next::kNothing);
  error.reason = "Disk quota exceeded";
  EXPECT_EQ(fullDisk(error), 3u);
  error.reason = "Input/output error";
  EXPECT_EQ(fullDisk(error), std::nullopt);
  for (const char* node : {"", "disk", "disk3-file", "disk-1", "disk99999999999", "xdisk3"}) {
    error = event("BLOCK_IO_ERROR", "No space left on device");
    error.node = node;
    EXPECT_EQ(fullDisk(error), std::nullopt) << node;
  }
  error = event("OTHER", "No space left on device");
  error.node = "disk3";
  EXPECT_EQ(fullDisk(error), std::nullopt);
}

TEST(OutcomeTest, watchdog_endsTheMachineOnlyIfItIsTold) {
  OutcomeTracker tracker;
  EXPECT_EQ(tracker.note(event("WATCHDOG")), Next::kWatchdog);
  EXPECT_EQ(tracker.note(event("STOP")), Next::kAskStatus);
  EXPECT_FALSE(tracker.noteStatus("watchdog"));
  tracker.noteWatchdog();
  EXPECT_EQ(tracker.note(event("WATCHDOG")), Next::kNothing);
  EXPECT_EQ(tracker.note(event("SHUTDOWN", "host-qmp-quit")), Next::kAwaitExit);
  EXPECT_EQ(tracker.finish(kExitedZero, "").cause, EndCause::WATCHDOG);
}

TEST(OutcomeTest, stopThatWasAskedFor_isNoNews) {
  OutcomeTracker tracker;
  tracker.expectStop();
  EXPECT_EQ(tracker.note(event("STOP")), Next::kNothing);
  tracker.stopDone();
  EXPECT_EQ(tracker.note(event("RESUME")), Next::kNothing);
  EXPECT_EQ(tracker.note(event("STOP")), Next::kAskStatus);
}

TEST(OutcomeTest, processEndsWithoutAWord) {
  EXPECT_EQ(OutcomeTracker().finish(kExitedZero, "").detail, "QEMU exited with code 0");
  EXPECT_EQ(OutcomeTracker().finish({ProcessEnd::Kind::kSignalled, 6}, "assertion failed").detail,
            "QEMU was ended by signal SIGABRT; it said: assertion failed");
  EXPECT_EQ(OutcomeTracker().finish({}, "").cause, EndCause::WORKER_FAULT);
}

TEST(OutcomeTest, protocolFault_isToldUnlessTheGuestEndedFirst) {
  OutcomeTracker fault;
  fault.noteFault("QMP: nonsense");
  EXPECT_EQ(fault.finish({ProcessEnd::Kind::kSignalled, 9}, "").detail, "QMP: nonsense");

  OutcomeTracker ended;
  ended.note(event("SHUTDOWN", "guest-shutdown"));
  ended.noteFault("QMP: nonsense");
  EXPECT_EQ(ended.finish({ProcessEnd::Kind::kSignalled, 9}, "").cause, EndCause::POWER_OFF);
}

}  // namespace
}  // namespace qemubackend
