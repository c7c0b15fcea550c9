#include "host/runtime/name_lock.h"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "host/runtime/entry_folders.h"
#include "host/runtime/testing.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

class NameLockTest : public RuntimeTest {
 protected:
  // A process in the middle of a change.
  std::unique_ptr<Process> changing() {
    return std::make_unique<Process>([this] { return NameLock::take(directories, vmName("vm")); });
  }
  static std::ptrdiff_t threads() {
    return std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator());
  }
  static void waitForThreads(std::ptrdiff_t count) {
    while (threads() < count) {
      std::this_thread::yield();
    }
  }
  // Has change as long as the descriptor is open, and says nothing of itself.
  static Fd heldBy(const fs::path& file) {
    Fd held(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    struct flock change = {};
    change.l_type = F_WRLCK;
    change.l_whence = SEEK_SET;
    change.l_start = 1;
    change.l_len = 1;
    EXPECT_EQ(::fcntl(held.get(), F_OFD_SETLK, &change), 0);
    return held;
  }
  static bool isNamed(const Error& error, const Process& process) {
    return error.message().find("process " + std::to_string(process.pid()) + " (") != std::string::npos;
  }
};

TEST_F(NameLockTest, stoppedHolder_isNamedAfterAWhile_andNotRobbed) {
  const auto holder = changing();
  ASSERT_EQ(holder->answer(), 'x');
  ASSERT_EQ(::kill(holder->pid(), SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(holder->pid(), &status, WUNTRACED), holder->pid());
  const auto begin = Clock::now();
  const Error error = errorOf([&] { find(directories, vmName("vm")); });
  EXPECT_GE(Clock::now() - begin, 5s);
  EXPECT_LT(Clock::now() - begin, 30s);
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(error.retryable());
  EXPECT_TRUE(isNamed(error, *holder)) << error.message();
  EXPECT_NE(error.message().find(", which is stopped"), std::string::npos) << error.message();
  EXPECT_NE(error.hint().find("kill -CONT " + std::to_string(holder->pid())), std::string::npos) << error.hint();
  // The name is still its own.
  EXPECT_TRUE(isNamed(errorOf([&] { Reservation::take(directories, vmName("vm")); }), *holder));
}

TEST_F(NameLockTest, holderThatRuns_isNotCalledStopped) {
  const auto holder = changing();
  const Error error = errorOf([&] { NameLock::take(directories, vmName("vm"), 50ms); });
  EXPECT_TRUE(isNamed(error, *holder)) << error.message();
  EXPECT_NE(error.message().find("not stopped"), std::string::npos) << error.message();
}

TEST_F(NameLockTest, whoHeldIt_isNotNamedAfterwards) {
  const fs::path file = run("vm") / kLockFile;
  {
    const NameLock lock = NameLock::take(directories, vmName("vm"));
    EXPECT_NE(read(file), "");
  }
  EXPECT_EQ(read(file), "");
  const Reservation reservation = Reservation::take(directories, vmName("vm"));
  EXPECT_EQ(read(file), "");
}

TEST_F(NameLockTest, list_tellsOfOneThatIsBeingChanged_andDoesNotWait) {
  const auto holder = changing();
  ASSERT_EQ(holder->answer(), 'x');
  const auto begin = Clock::now();
  const std::vector<Entry> entries = list(directories, Kind::kVm);
  EXPECT_LT(Clock::now() - begin, 4s);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].name.text, "vm");
  EXPECT_TRUE(entries[0].isChanging);
  holder->end(SIGKILL);
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
}

// As after one that was killed, or one of before.
TEST_F(NameLockTest, processThatHasNotOpenedTheLock_isNotNamed) {
  const fs::path file = run("vm") / kLockFile;
  NameLock::take(directories, vmName("vm"));
  write(file, "1 0\n");
  const Fd held = heldBy(file);
  const Error error = errorOf([&] { NameLock::take(directories, vmName("vm"), 50ms); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_EQ(error.message().find("process 1"), std::string::npos) << error.message();
  EXPECT_EQ(error.hint().find("kill"), std::string::npos) << error.hint();
}

// Between its having the lock and its having said so a holder is not known: one who looks then, and looks so again, may
// have seen two of them.
TEST_F(NameLockTest, holderThatIsNotKnown_isGivenTheTimeOfTwo) {
  constexpr auto kPatience = 300ms;
  const fs::path file = run("vm") / kLockFile;
  NameLock::take(directories, vmName("vm"));
  for (const char* text : {"", "1 0\n"}) {  // nobody's, and one's who was killed
    write(file, text);
    const Fd held = heldBy(file);
    const auto begin = Clock::now();
    const Error error = errorOf([&] { NameLock::take(directories, vmName("vm"), kPatience); });
    EXPECT_GE(Clock::now() - begin, 2 * kPatience) << text;
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable) << error.message();
  }
}

// What one who was killed has left is longer, and is cut off after the new text was written.
TEST_F(NameLockTest, holderThatIsJustWriting_isTheSameAfterwards) {
  constexpr auto kPatience = 3s;
  const auto holder = changing();
  const fs::path file = run("vm") / kLockFile;
  const std::string text = read(file);
  write(file, text + "789\n");
  const auto before = threads();
  std::thread cutting([&] {
    waitForThreads(before + 2);
    fs::resize_file(file, text.size());
  });
  const auto begin = Clock::now();
  const Error error = errorOf([&] { NameLock::take(directories, vmName("vm"), kPatience); });
  EXPECT_LT(Clock::now() - begin, 2 * kPatience);
  cutting.join();
  EXPECT_TRUE(isNamed(error, *holder)) << error.message();
}

TEST_F(NameLockTest, whoWaits_getsItWhenTheHolderEnds) {
  auto holder = changing();
  const auto before = threads();
  Clock::time_point end;
  std::thread ending([&] {
    waitForThreads(before + 2);  // this one, and the one that waits for the lock
    end = Clock::now();
    holder->end(SIGKILL);
  });
  EXPECT_NO_THROW(NameLock::take(directories, vmName("vm"), 30s));
  const auto taken = Clock::now();
  ending.join();
  EXPECT_LT(taken - end, 10s);  // and not when its patience is over
}

// One after the other has it for a moment: nobody has it too long, though whoever is last waits for all the others.
TEST_F(NameLockTest, manyHolders_areNoHolderThatHangs) {
  constexpr int kThreads = 32;
  constexpr auto kTurn = 40ms;
  constexpr auto kPatience = 25 * kTurn;
  static_assert((kThreads - 1) * kTurn > kPatience);
  const auto before = threads();
  std::vector<std::thread> holders;
  std::atomic<int> failures = 0;
  {
    const NameLock first = NameLock::take(directories, vmName("vm"));
    for (int thread = 0; thread < kThreads; ++thread) {
      holders.emplace_back([&] {
        try {
          const NameLock lock = NameLock::take(directories, vmName("vm"), kPatience);
          std::this_thread::sleep_for(kTurn);
        } catch (const Error&) {
          ++failures;
        }
      });
    }
    waitForThreads(before + 2 * kThreads);  // all wait
  }
  for (std::thread& holder : holders) {
    holder.join();
  }
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace vmmhost::runtime
