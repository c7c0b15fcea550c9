#include "host/vm/memory_meter.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <optional>

#include "host/vm/memory_usage.h"

namespace vmmhost::vm {
namespace {

constexpr std::chrono::milliseconds kLong{60'000};

// A process with so many pages in so many mappings that going through them takes a while.
class LargeProcess {
 public:
  LargeProcess() {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      mapAll();
      (void)!::write(ends[1], "x", 1);
      for (;;) {
        ::pause();
      }
    }
    ::close(ends[1]);
    char ready = 0;
    EXPECT_EQ(::read(ends[0], &ready, 1), 1);
    ::close(ends[0]);
  }
  ~LargeProcess() {
    if (pid_ > 0) {
      kill();
      wait();
    }
  }
  // Killed, and with it its memory is gone; its number stays until wait().
  void kill() {
    siginfo_t info = {};
    EXPECT_EQ(::kill(pid_, SIGKILL), 0);
    EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT), 0);
  }
  void wait() {
    EXPECT_EQ(::waitpid(pid_, nullptr, 0), pid_);
    pid_ = 0;
  }
  LargeProcess(const LargeProcess&) = delete;
  LargeProcess& operator=(const LargeProcess&) = delete;
  pid_t pid() const { return pid_; }

 private:
  static void mapAll() {
    constexpr std::size_t kBytes = std::size_t{32} << 20;
    [[maybe_unused]] static volatile char own = 0;  // memory of its own, in front of all that follows
    own = 1;
    const int memory = ::memfd_create("large", MFD_CLOEXEC);
    if (::ftruncate(memory, kBytes) != 0) {
      ::_exit(1);
    }
    for (int i = 0; i < 300; ++i) {
      void* mapping = ::mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, memory, 0);
      if (mapping == MAP_FAILED) {
        ::_exit(1);
      }
      // Huge pages would be gone through quickly. A kernel that has none does not know the word.
      ::madvise(mapping, kBytes, MADV_NOHUGEPAGE);
      if (::madvise(mapping, kBytes, MADV_POPULATE_READ) != 0) {
        ::_exit(1);
      }
    }
  }

  pid_t pid_;
};

class MemoryMeterTest : public ::testing::Test {
 public:
  ~MemoryMeterTest() noexcept override {}  // KJ's members may throw from theirs

 protected:
  kj::Promise<void> countTicks() {
    return io_.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).then([this]() {
      ++ticks_;
      return countTicks();
    });
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  int ticks_ = 0;
};

TEST_F(MemoryMeterTest, loopGoesOn_whileALargeProcessIsMeasured) {
  const LargeProcess process;
  MemoryMeter meter(io_.unixEventPort);
  const auto ticking = countTicks().eagerlyEvaluate(nullptr);
  EXPECT_GT(meter.measure(process.pid(), 0x10000000000, kLong).wait(io_.waitScope), 0u);
  EXPECT_GE(ticks_, 3);
}

TEST_F(MemoryMeterTest, measurementThatTakesTooLong_isNone) {
  const LargeProcess process;
  MemoryMeter meter(io_.unixEventPort);
  EXPECT_EQ(meter.measure(process.pid(), 0x10000000000, std::chrono::milliseconds(0)).wait(io_.waitScope), 0u);
}

TEST_F(MemoryMeterTest, processThatIsGone_isNotMeasured) {
  std::optional<LargeProcess> process(std::in_place);
  const Fd folder = openProcess(process->pid());
  EXPECT_GT(privateBytesOutsideGuest(folder, 0x10000000000), 0u);
  process.reset();
  EXPECT_EQ(privateBytesOutsideGuest(folder, 0x10000000000), 0u);
  MemoryMeter meter(io_.unixEventPort);
  EXPECT_EQ(meter.measure(0x7ffffff0, 0x10000000000, kLong).wait(io_.waitScope), 0u);
}

// What was counted up to then is no figure.
TEST_F(MemoryMeterTest, processThatEndsMeanwhile_isNotMeasured) {
  for (const bool isWaitedFor : {false, true}) {
    LargeProcess process;
    const Fd folder = openProcess(process.pid());
    unsigned parts = 0;
    const auto count = [&]() {
      ++parts;
      return false;
    };
    EXPECT_GT(privateBytesOutsideGuest(folder, 0x10000000000, count), 0u);
    ASSERT_GT(parts, 10u);
    unsigned part = 0;
    const auto endHalfway = [&]() {
      if (++part == parts / 2) {
        process.kill();
        if (isWaitedFor) {
          process.wait();
        }
      }
      return false;
    };
    EXPECT_EQ(privateBytesOutsideGuest(folder, 0x10000000000, endHalfway), 0u) << isWaitedFor;
    EXPECT_GE(part, parts / 2);
  }
}

TEST_F(MemoryMeterTest, whatNobodyWaitsFor_isGivenUp) {
  using Clock = std::chrono::steady_clock;
  const LargeProcess process;
  std::optional<MemoryMeter> meter(std::in_place, io_.unixEventPort);
  auto begin = Clock::now();
  EXPECT_GT(meter->measure(process.pid(), 0x10000000000, kLong).wait(io_.waitScope), 0u);
  const auto whole = Clock::now() - begin;
  begin = Clock::now();
  for (int i = 0; i < 20; ++i) {
    auto dropped = meter->measure(process.pid(), 0x10000000000, kLong);
  }
  meter.reset();
  EXPECT_LT(Clock::now() - begin, 5 * whole);
}

}  // namespace
}  // namespace vmmhost::vm
