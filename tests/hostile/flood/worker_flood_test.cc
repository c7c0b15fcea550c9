// Hostile workers of a host that runs another VM: this process, by vmmhost/host.h.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "tests/hostile/flood/floods.h"
#include "tests/hostile/flood/limits.h"
#include "tests/hostile/flood/measure.h"
#include "tests/support/built.h"
#include "tests/support/forbidden_calls.h"
#include "vmmhost/host.h"

namespace vmmhost::hostile {

void PrintTo(const Flood& flood, std::ostream* out) {
  *out << flood.name;
}

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr unsigned kMinProbes = 12;

std::set<pid_t> threads() {
  std::set<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc/self/task")) {
    found.insert(std::stoi(entry.path().filename()));
  }
  return found;
}

class WorkerFloods : public ::testing::Test {
 protected:
  WorkerFloods() {
    std::string pattern = (fs::temp_directory_path() / "vmmhost-flood-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    ::chmod(folder_.c_str(), 0700);
    std::ofstream(folder_ + "/kernel") << "nothing";
    HostOptions options;
    options.pluginPath = tests::built("lib/flood-plugins");
    options.installation = tests::built("stage/bin/vmmhost");
    options.logFile = folder_ + "/host.log";
    const std::set<pid_t> before = threads();
    host_ = std::make_unique<Host>(options);
    for (const pid_t thread : threads()) {
      hostThread_ = before.count(thread) == 0 ? thread : hostThread_;
    }
    neighbour_ = start("calm");
  }
  ~WorkerFloods() override {
    neighbour_.reset();
    host_.reset();
    tests::expectNoForbiddenCall(folder_ + "/host.log");  // a flood is no call
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  std::unique_ptr<OwnedVm> start(const std::string& flood) {
    VmOptions options;
    options.backend = "flood";
    options.workingDirectory = folder_;
    return host_
        ->start(
            R"({"boot":{"kernel":"kernel"},"memory":{"size":"64M"},"platform":{"options":[{"name":"attack","value":")" +
                flood + R"("},{"name":"moment","value":")" + std::to_string(floodTime().count()) + R"("}]}})",
            options)
        .get();
  }
  // The first number behind `name` in what is told of a VM.
  static std::uint64_t field(OwnedVm& vm, const std::string& name) {
    const std::string text = vm.describe().get();
    const std::size_t digits = text.find_first_of("0123456789", text.find(name));
    EXPECT_NE(text.find(name), std::string::npos) << text;
    return digits == std::string::npos ? 0 : std::strtoull(text.c_str() + digits, nullptr, 10);
  }
  static pid_t worker(OwnedVm& vm) { return static_cast<pid_t>(field(vm, "\"workerPid\"")); }
  static std::uint64_t ticks(OwnedVm& vm) { return field(vm, "\"values\""); }

  // Starts a VM with this flood; what must hold while it goes on, and after it. Gives the VM for a look at its end.
  std::unique_ptr<OwnedVm> endure(const std::string& flood) {
    // What the first of each thing takes is no growth.
    start("calm")->stop().get();
    neighbour_->pause().get();
    neighbour_->resume().get();
    const std::uint64_t before = ticks(*neighbour_);
    const auto end = Clock::now() + floodTime() + 50ms;
    MemoryWatch memory(::getpid());
    auto vm = start(flood);
    Lateness lateness({hostThread_, worker(*neighbour_)});
    // On a machine with more to do than this, the first few take longer than the flood.
    while (Clock::now() < end || lateness.count() < kMinProbes) {
      lateness.measure([&] { neighbour_->pause().get(); });
      lateness.measure([&] { neighbour_->resume().get(); });
      std::this_thread::sleep_for(1ms);
    }
    std::printf("grew %llu KiB; %s\n", static_cast<unsigned long long>(memory.growth() / 1024),
                lateness.text().c_str());
    if (kFiguresAreJudged) {
      EXPECT_LT(memory.growth(), kMaxGrowth);
      EXPECT_LT(lateness.worst(), kMaxLateness) << lateness.text();
    }
    EXPECT_GT(ticks(*neighbour_), before) << "the other VM stood still";
    return vm;
  }

  std::string folder_;
  pid_t hostThread_ = -1;
  std::unique_ptr<Host> host_;
  std::unique_ptr<OwnedVm> neighbour_;
};

class WorkerFlood : public WorkerFloods, public ::testing::WithParamInterface<Flood> {};

TEST_P(WorkerFlood, costsTheHostLittle_andItsOtherVmNothing) {
  const std::size_t descriptors = openDescriptors(::getpid());
  auto vm = endure(GetParam().name);
  if (GetParam().fromWorker == End::kCut) {
    const Ending ending = vm->wait().get();
    EXPECT_EQ(ending.kind, "workerDied");
    std::printf("%s: %s\n", ending.kind.c_str(), ending.detail.c_str());
  } else {
    EXPECT_EQ(vm->state(), State::kRunning);
    EXPECT_EQ(vm->stop().get().kind, "stopped");
  }
  vm.reset();
  EXPECT_EQ(openDescriptors(::getpid()), descriptors);
}

std::string testName(const ::testing::TestParamInfo<Flood>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Answers, WorkerFlood, ::testing::ValuesIn(answerFloods()), testName);
INSTANTIATE_TEST_SUITE_P(Nonsense, WorkerFlood, ::testing::ValuesIn(nonsenseFloods()), testName);
INSTANTIATE_TEST_SUITE_P(Malformed, WorkerFlood, ::testing::ValuesIn(malformedFloods()), testName);

TEST_F(WorkerFloods, logWithoutEnd_isBorne) {
  auto vm = endure("log");
  EXPECT_EQ(vm->stop().get().kind, "stopped");
  EXPECT_GT(fs::file_size(folder_ + "/host.log"), std::uintmax_t{1} << 16) << "it is a flood";
  EXPECT_LT(fs::file_size(folder_ + "/host.log"), std::uintmax_t{2} << 20);
}

TEST_F(WorkerFloods, consoleWithoutEnd_isBorne_andAClientThatReadsNothingToo) {
  const Fd reader = neighbour_->console(0, false).get();
  auto vm = endure("console");
  const Fd unread = vm->console(65536, false).get();
  char byte = 0;
  EXPECT_EQ(::recv(unread.get(), &byte, 1, MSG_PEEK), 1) << "there is something to be read";
  EXPECT_EQ(byte, 'x');
  EXPECT_EQ(vm->stop().get().kind, "stopped");
}

// A guest decides how often its worker tells of something. A worker that keeps the protocol waits for the answers and
// is not at fault; one that does not is that of faults.worker (flood:events).
TEST_F(WorkerFloods, moreEventsThanAnyVmNeeds_areHeldBack_andTheEndIsTheGuests) {
  auto vm = endure("events");
  const Ending ending = vm->wait().get();
  EXPECT_EQ(ending.kind, "guest") << ending.detail;
  EXPECT_EQ(ending.cause, "powerOff");
  EXPECT_EQ(ending.detail, "after many events");
}

// A guest may panic as often as it likes: its worker, if it is what it should be, tells of that no faster than is
// taken.
TEST_F(WorkerFloods, panicsWithLongText_areBorne) {
  auto vm = endure("panics");
  EXPECT_EQ(vm->state(), State::kRunning);
  EXPECT_EQ(vm->stop().get().kind, "stopped");
}

TEST_F(WorkerFloods, panicsWithoutEnd_endTheVm_andTheGuestIsNamed) {
  auto vm = endure("panic-storm");
  const Ending ending = vm->wait().get();
  EXPECT_EQ(ending.kind, "guest");
  EXPECT_EQ(ending.cause, "panic");
  EXPECT_NE(ending.detail.find("the guest told of panics without end"), std::string::npos) << ending.detail;
  std::ifstream log(folder_ + "/host.log");
  const std::string said(std::istreambuf_iterator<char>(log), {});
  std::size_t lines = 0;
  for (std::size_t at = said.find("guest: again"); at != std::string::npos; at = said.find("guest: again", at + 1)) {
    ++lines;
  }
  EXPECT_GT(lines, 0u);
  EXPECT_LT(lines, 1000u) << "the log has room for what else there is to say";
  EXPECT_NE(said.find(" times more"), std::string::npos) << "those that were left out are counted";
}

TEST_F(WorkerFloods, stopInTheMiddle_isCarriedOut) {
  for (const char* flood : {"never-reads", "bootstrap-storm", "console", "log", "half-word"}) {
    auto vm = start(flood);
    const pid_t pid = worker(*vm);
    const auto begin = Clock::now();
    EXPECT_EQ(vm->stop().get().kind, "stopped") << flood;
    EXPECT_LT(Clock::now() - begin, 2s) << flood;
    EXPECT_GT(pid, 0) << flood;
    EXPECT_EQ(::kill(pid, 0), -1) << flood;
    EXPECT_EQ(errno, ESRCH) << flood;
  }
}

}  // namespace
}  // namespace vmmhost::hostile
