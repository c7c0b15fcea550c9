// The worker as the host starts it: the real executable in the real jail, spoken to over its protocol.
#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "ipc/jail/spawn/spawn.h"
#include "ipc/rpc/connection.h"
#include "tests/support/built.h"
#include "vmmhost/counters.h"

namespace vmmhost::kvm {
namespace {

constexpr auto kLimit = std::chrono::seconds(60);
constexpr uid_t kTestUid = 1'990'000'017;  // when root runs the test: nobody else's

struct SeenEvents {
  bool ended = false;
  schema::EndCause cause = schema::EndCause::UNKNOWN;
  std::string detail;
  int resets = 0;
};

class Sink final : public schema::EventSink::Server {
 public:
  explicit Sink(SeenEvents& seen) : seen_(seen) {}
  kj::Promise<void> event(EventContext context) override {
    const auto event = context.getParams().getEvent();
    if (event.isEnded()) {
      seen_.ended = true;
      seen_.cause = event.getEnded().getCause();
      seen_.detail = event.getEnded().getDetail().cStr();
    } else if (event.isResetDone()) {
      ++seen_.resets;
    }
    return kj::READY_NOW;
  }

 private:
  SeenEvents& seen_;
};

struct Pipe {
  Fd read;
  Fd write;
};

Pipe makePipe() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

Pipe makeConsole() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

// How long `work` takes, told: docs/performance.md has it.
template <typename Work>
void timed(const char* what, Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("%s: %.3f s\n", what, took.count());
}

// Keeps one thread of another process from running, and none of its other threads.
class HeldThread {
 public:
  explicit HeldThread(pid_t thread) : thread_(thread) {
    isHeld_ = ::ptrace(PTRACE_SEIZE, thread_, nullptr, nullptr) == 0;
    if (isHeld_) {
      EXPECT_EQ(::ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr), 0);
      EXPECT_EQ(::waitpid(thread_, nullptr, __WALL), thread_);
    }
  }
  ~HeldThread() {
    if (isHeld_) {
      EXPECT_EQ(::ptrace(PTRACE_DETACH, thread_, nullptr, nullptr), 0);
    }
  }
  HeldThread(const HeldThread&) = delete;
  HeldThread& operator=(const HeldThread&) = delete;
  bool isHeld() const { return isHeld_; }  // false: this process may not

 private:
  pid_t thread_;
  bool isHeld_ = false;
};

std::string readFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class WorkerProcessTest : public testing::Test {
 public:
  ~WorkerProcessTest() noexcept override {}  // KJ's members may throw from theirs

 protected:
  void SetUp() override {
    kvm_ = Fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm_) {
      std::cerr << "\n*** /dev/kvm cannot be opened: NOTHING of the worker process is tested here ***\n" << std::endl;
      GTEST_SKIP() << "/dev/kvm cannot be opened";
    }
    const Fd executable(::open(tests::built("bin/vmmhost-worker-kvm").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(executable);
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    Pipe log = makePipe();
    log_ = std::move(log.read);
    rpc::SocketPair sockets = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);

    spawn::Request request;
    request.executable = executable.get();
    request.argv = {"vmmhost-worker-kvm"};
    request.epolls = 8;
    request.descriptors = {{null.get(), 0}, {null.get(), 1}, {log.write.get(), 2}, {sockets.remote.get(), 3}};
    request.jail.uid = ::getuid() == 0 ? kTestUid : ::getuid();
    request.jail.gid = ::getuid() == 0 ? kTestUid : ::getgid();
#ifdef VMMHOST_SANITIZED
    request.jail.root = spawn::Jail::Root::kSystem;
    request.jail.proc = true;
    request.jail.seccompPolicy = "worker-dynamic";
#endif
    child_.emplace(spawn::begin(request));
    pollfd poll{child_->statusFd(), POLLIN, 0};
    do {
      ASSERT_GT(::poll(&poll, 1, 10'000), 0);
    } while (!child_->executed());
    sockets.remote.reset();
    connection_.emplace(io_, std::move(sockets.local), rpc::Side::kClient, rpc::Limits{});
    worker_ = connection_->bootstrap<schema::Worker>();
    auto hello = worker_.helloRequest();
    hello.initHost().setProtocolMajor(schema::PROTOCOL_MAJOR);
    rpc::throwIfError(wait(hello.send()));
    rpc::throwIfError(wait(worker_.confirmRequest().send()));
  }

  void TearDown() override {
    if (!child_) {
      return;
    }
    connection_.reset();
    const auto exit = waitForExit();
    EXPECT_EQ(exit.kind, spawn::Child::Exit::Kind::kCode) << "signal " << exit.value << ", log: " << readLog();
    EXPECT_EQ(exit.value, 0) << readLog();
  }

  spawn::Child::Exit waitForExit() {
    pollfd poll{child_->pidfd(), POLLIN, 0};
    EXPECT_GT(::poll(&poll, 1, 10'000), 0) << "the worker outlives its host";
    return child_->reap().value_or(spawn::Child::Exit{});
  }

  template <typename T>
  T wait(kj::Promise<T> promise) {
    return rpc::withDeadline(io_.provider->getTimer(), kLimit, "the worker", kj::mv(promise)).wait(io_.waitScope);
  }
  template <typename T>
  capnp::Response<T> wait(capnp::RemotePromise<T> promise) {
    return wait(kj::Promise<capnp::Response<T>>(kj::mv(promise)));
  }

  void attach(Fd fd, const std::function<void(schema::Resource::Builder)>& describe) {
    auto request = worker_.attachRequest();
    describe(request.initResource());
    request.setDescriptor(rpc::makeDescriptor(std::move(fd)));
    rpc::throwIfError(wait(request.send()));
  }

  // Attaches what a VM of this guest needs and creates it; throws what the worker answers.
  void create(
      const std::string& guest, const std::function<void(schema::VmConfig::Builder)>& change = [](auto) {}) {
    createFrom(tests::built("guests/" + guest + ".elf"), change);
  }
  void createFrom(
      const std::string& path, const std::function<void(schema::VmConfig::Builder)>& change = [](auto) {}) {
    Fd kernel(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(kernel);
    attach(std::move(kernel), [](auto resource) { resource.setFile(1); });
    attach(std::move(kvm_), [](auto resource) { resource.setDevice("kvm"); });
    Pipe console = makeConsole();
    const int small = 4096;
    ASSERT_EQ(::setsockopt(console.write.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    console_ = std::move(console.read);
    attach(std::move(console.write), [](auto resource) { resource.setConsole(0); });
    attach(Fd(::fcntl(counters_.descriptor(), F_DUPFD_CLOEXEC, 3)), [](auto resource) { resource.setCounters(); });
    auto request = worker_.createRequest();
    auto config = request.initConfig();
    config.setName("test");
    config.initBoot().initKernel().setResource(1);
    config.initMemory().setSize(64 << 20);
    change(config);
    request.setEvents(kj::heap<Sink>(events_));
    auto response = wait(request.send());
    rpc::throwIfError(response);
    vm_ = response.getVm();
    pausable_ = response.getAbilities().getPausable();
    resettable_ = response.getAbilities().getResettable();
    hasPowerButton_ = response.getAbilities().hasPowerButton();
  }

  template <typename Request>
  void callOn(Request request) {
    rpc::throwIfError(wait(request.send()));
  }
  void start() {
    callOn(vm_.startRequest());
  }

  void takeOutput() {
    std::array<char, 4096> buffer;
    ssize_t count = 0;
    while (readsConsole_ && (count = ::read(console_.get(), buffer.data(), buffer.size())) > 0) {
      output_.append(buffer.data(), static_cast<std::size_t>(count));
    }
  }
  // Runs the event loop, a little at a time, since the console is no part of it.
  template <typename Done>
  void waitUntil(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    while (true) {
      io_.waitScope.poll();
      takeOutput();
      if (done()) {
        return;
      }
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "output: " << output_ << " log: " << readLog();
      io_.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
  }
  void waitForOutput(const std::string& text) {
    waitUntil([&] { return output_.find(text) != std::string::npos; });
  }
  void waitForEnd() {
    waitUntil([&] { return events_.ended; });
    takeOutput();
  }
  void type(std::string_view text) {
    ASSERT_EQ(::write(console_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  pid_t threadOf(const std::string& name) const {
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(child_->pid()) + "/task")) {
      if (readFile(task.path() / "comm") == name + "\n") {
        return std::stoi(task.path().filename());
      }
    }
    ADD_FAILURE() << "the worker has no thread " << name;
    return 0;
  }
  std::string readLog() {
    std::array<char, 4096> buffer;
    const ssize_t count = ::read(log_.get(), buffer.data(), buffer.size());
    return count > 0 ? std::string(buffer.data(), static_cast<std::size_t>(count)) : std::string();
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  SeenEvents events_;
  counters::HostPage counters_;
  Fd kvm_;
  Fd log_;
  Fd console_;
  std::string output_;
  std::optional<spawn::Child> child_;
  std::optional<rpc::Connection> connection_;
  schema::Worker::Client worker_ = nullptr;
  schema::Vm::Client vm_ = nullptr;
  schema::Pausable::Client pausable_ = nullptr;
  schema::Resettable::Client resettable_ = nullptr;
  bool hasPowerButton_ = false;
  bool readsConsole_ = true;
};

TEST_F(WorkerProcessTest, helloGuest_printsAndPowersOff) {
  create("hello");
  start();
  waitForEnd();
  EXPECT_EQ(events_.cause, schema::EndCause::POWER_OFF);
  EXPECT_EQ(output_, "hello from the guest\ngood bye\n");
  EXPECT_EQ(counters_.read(counters::Cell::kConsoleBytesOut), output_.size());
  EXPECT_GT(counters_.read(counters::Cell::kPioExits), output_.size());
}

TEST_F(WorkerProcessTest, tripleFault_isReportedAsSuch_withRegisters) {
  create("triple_fault");
  start();
  waitForEnd();
  EXPECT_EQ(events_.cause, schema::EndCause::TRIPLE_FAULT);
  EXPECT_NE(events_.detail.find("RIP 0x"), std::string::npos) << events_.detail;
}

TEST_F(WorkerProcessTest, resetRequest_isReportedAsSuch) {
  create("reset");
  start();
  waitForEnd();
  EXPECT_EQ(events_.cause, schema::EndCause::RESET);
}

TEST_F(WorkerProcessTest, internalError_isACrashWithRegisters) {
  create("internal_error");
  start();
  waitForEnd();
  EXPECT_EQ(events_.cause, schema::EndCause::CRASH);
  EXPECT_NE(events_.detail.find("RIP 0xd0000000"), std::string::npos) << events_.detail;
}

TEST_F(WorkerProcessTest, pausedGuest_answersOnlyAfterResume) {
  create("serial_echo");
  start();
  waitForOutput("echo ready\n");
  callOn(pausable_.pauseRequest());
  callOn(pausable_.pauseRequest());
  const auto exits = counters_.read(counters::Cell::kVcpuExits);
  type("abc");
  callOn(pausable_.pauseRequest());
  EXPECT_EQ(counters_.read(counters::Cell::kVcpuExits), exits);
  callOn(pausable_.resumeRequest());
  waitForOutput("abc");
  EXPECT_EQ(counters_.read(counters::Cell::kPauses), 1U);
  type("\x04");
  waitForEnd();
  EXPECT_EQ(events_.cause, schema::EndCause::POWER_OFF);
  EXPECT_EQ(counters_.read(counters::Cell::kConsoleBytesIn), 4U);
}

TEST_F(WorkerProcessTest, reset_bootsAgainAndIsReported) {
  create("serial_echo");
  start();
  waitForOutput("echo ready\n");
  output_.clear();
  callOn(resettable_.resetRequest());
  waitForOutput("echo ready\n");
  waitUntil([this] { return events_.resets == 1; });
  // A paused VM stays paused through a reset.
  callOn(pausable_.pauseRequest());
  takeOutput();
  output_.clear();
  callOn(resettable_.resetRequest());
  const auto exits = counters_.read(counters::Cell::kVcpuExits);
  waitUntil([this] { return events_.resets == 2; });
  EXPECT_EQ(counters_.read(counters::Cell::kVcpuExits), exits);
  callOn(pausable_.resumeRequest());
  waitForOutput("echo ready\n");
  EXPECT_EQ(counters_.read(counters::Cell::kResets), 2U);
  type("\x04");
  waitForEnd();
}

TEST_F(WorkerProcessTest, resetThatReadsMuch_keepsNobodyWaiting) {
  constexpr std::uint64_t kInitrd = std::uint64_t{256} << 20;
  Fd initrd(::memfd_create("initrd", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(initrd.get(), kInitrd), 0);
  attach(std::move(initrd), [](auto resource) { resource.setFile(2); });
  create("loop", [](schema::VmConfig::Builder config) {
    config.getMemory().setSize(2 * kInitrd);
    config.getBoot().initInitrd().setResource(2);
  });
  start();
  callOn(pausable_.pauseRequest());
  // As it is, and with a reading that does not come to an end.
  for (const bool isHeld : {false, true}) {
    std::optional<HeldThread> loader;
    if (isHeld) {
      loader.emplace(threadOf("loader"));
    }
    bool isReset = false;
    const auto resetting = resettable_.resetRequest()
                               .send()
                               .then(rpc::guarded([&](auto&& response) {
                                 rpc::throwIfError(response);
                                 isReset = true;
                               }))
                               .eagerlyEvaluate(nullptr);
    auto second = resettable_.resetRequest().send();  // has the same reset
    timed(isHeld ? "pause while its reading stands still" : "pause while an initial RAM disk of 256 MiB is read anew",
          [this] { callOn(pausable_.pauseRequest()); });
    if (loader && loader->isHeld()) {
      // That one may be answered just before the reset though it had to wait for the reading: the next one behind it.
      callOn(pausable_.pauseRequest());
    }
    EXPECT_FALSE(isReset);
    loader.reset();
    rpc::throwIfError(wait(kj::mv(second)));
    EXPECT_TRUE(isReset);
    const int resets = isHeld ? 2 : 1;
    waitUntil([&] { return events_.resets >= resets; });
    EXPECT_EQ(events_.resets, resets);
  }
  callOn(pausable_.resumeRequest());
  waitForOutput("looping\n");
  EXPECT_EQ(events_.resets, 2);
}

TEST_F(WorkerProcessTest, endlessGuest_endsWithTheConnection) {
  create("loop");
  start();
  waitForOutput("looping\n");
}

TEST_F(WorkerProcessTest, consoleThatIsNotRead_holdsUpNeitherPauseNorEnd) {
  readsConsole_ = false;
  create("flood");
  start();
  // The guest stands still once the socket and the port are full.
  std::uint64_t before = 0;
  waitUntil([&] {
    const std::uint64_t now = counters_.read(counters::Cell::kConsoleBytesOut);
    return now > 0 && std::exchange(before, now) == now;
  });
  callOn(pausable_.pauseRequest());
  callOn(pausable_.resumeRequest());
  EXPECT_LT(counters_.read(counters::Cell::kConsoleBytesOut), 512U * 64U);
  EXPECT_FALSE(events_.ended);
  readsConsole_ = true;
  waitForEnd();
  std::string all;
  for (unsigned line = 0; line < 512; ++line) {
    char number[16];
    std::snprintf(number, sizeof number, "%08x", line);
    all += number + std::string(" the quick brown fox jumps over the lazy dog 0123456789\n");
  }
  EXPECT_EQ(output_, all);
}

TEST_F(WorkerProcessTest, consoleThatIsClosed_losesOutputOnly) {
  create("hello");
  console_.reset();
  start();
  waitForEnd();
  EXPECT_EQ(events_.cause, schema::EndCause::POWER_OFF);
}

TEST_F(WorkerProcessTest, callsAfterTheEnd_areRefused) {
  create("poweroff");
  start();
  waitForEnd();
  try {
    callOn(pausable_.pauseRequest());
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
  }
}

TEST_F(WorkerProcessTest, unsupportedField_isRefusedByName) {
  try {
    create("hello", [](schema::VmConfig::Builder config) { config.initShares(1); });
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find("shares[0]"), std::string::npos) << error.message();
  }
}

TEST_F(WorkerProcessTest, fileThatIsNoKernel_isRefused) {
  try {
    createFrom("/proc/self/cmdline");
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("boot.kernel: neither an ELF file"), std::string::npos) << error.message();
  }
}

#ifndef VMMHOST_SANITIZED

std::uint64_t fieldOf(const std::string& text, const std::string& name) {
  const auto at = text.find("\n" + name + ":");
  return at == std::string::npos ? 0 : std::stoull(text.substr(at + name.size() + 2));
}

TEST_F(WorkerProcessTest, everyThread_hasItsFinalFilterBeforeGuestCodeRuns) {
  create("loop", [](schema::VmConfig::Builder config) { config.initCpus().setCount(3); });
  const std::string tasks = "/proc/" + std::to_string(child_->pid()) + "/task";
  std::map<std::string, std::uint64_t> filters;
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    const std::string status = readFile(task.path() / "status");
    EXPECT_EQ(fieldOf(status, "Seccomp"), 2U);
    filters[readFile(task.path() / "comm")] = fieldOf(status, "Seccomp_filters");
  }
  ASSERT_EQ(filters.size(), 5U);
  for (const auto& [name, count] : filters) {
    EXPECT_EQ(count, 3U) << name;  // base, creation, own
  }
  EXPECT_TRUE(filters.contains("vcpu2\n"));
  EXPECT_TRUE(filters.contains("loader\n"));
}

// What a kernel wants zero costs the host no memory, neither at first nor at a reset.
TEST_F(WorkerProcessTest, resetOfAKernelWithMuchThatIsZero_takesNoMemory) {
  constexpr std::uint64_t kZeros = std::uint64_t{2} << 30;
  std::ifstream original(tests::built("guests/loop.elf"), std::ios::binary);
  std::string kernel(std::istreambuf_iterator<char>(original), {});
  ASSERT_EQ(kernel[EI_CLASS], ELFCLASS64);
  Elf64_Ehdr header;
  std::memcpy(&header, kernel.data(), sizeof header);
  bool isChanged = false;
  for (unsigned index = 0; index < header.e_phnum; ++index) {
    Elf64_Phdr program;
    char* const place = kernel.data() + header.e_phoff + index * sizeof program;
    std::memcpy(&program, place, sizeof program);
    if (program.p_type == PT_LOAD && program.p_memsz != 0) {
      program.p_memsz = kZeros;
      std::memcpy(place, &program, sizeof program);
      isChanged = true;
    }
  }
  ASSERT_TRUE(isChanged);
  std::string path = (std::filesystem::temp_directory_path() / "vmmhost-kernel-XXXXXX").string();
  const Fd file(::mkostemp(path.data(), O_CLOEXEC));
  ASSERT_EQ(::write(file.get(), kernel.data(), kernel.size()), static_cast<ssize_t>(kernel.size()));
  createFrom(path, [](schema::VmConfig::Builder config) { config.getMemory().setSize(2 * kZeros); });
  std::filesystem::remove(path);
  start();
  waitForOutput("looping\n");
  output_.clear();
  auto reset = resettable_.resetRequest().send();
  timed("pause while 2 GiB of a kernel's zeros are made anew", [this] { callOn(pausable_.pauseRequest()); });
  rpc::throwIfError(wait(kj::mv(reset)));
  callOn(pausable_.resumeRequest());
  waitForOutput("looping\n");
  EXPECT_LT(fieldOf(readFile("/proc/" + std::to_string(child_->pid()) + "/status"), "VmRSS"), 256U << 10);
}

TEST_F(WorkerProcessTest, privateMemoryBesidesGuestMemory_staysSmall) {
  create("serial_echo");
  start();
  waitForOutput("echo ready\n");
  const std::string smaps = readFile("/proc/" + std::to_string(child_->pid()) + "/smaps");
  if (smaps.empty()) {
    GTEST_SKIP() << "smaps of a non-dumpable process is for root";
  }
  // Guest memory is the one mapping of 64 MiB.
  std::uint64_t privateKib = 0;
  std::istringstream lines(smaps);
  std::string line;
  bool guestMemory = false;
  while (std::getline(lines, line)) {
    if (line.starts_with("Size:")) {
      guestMemory = std::stoull(line.substr(5)) == 64 * 1024;
    } else if ((line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:")) && !guestMemory) {
      privateKib += std::stoull(line.substr(14));
    }
  }
  EXPECT_GT(privateKib, 0U);
  EXPECT_LE(privateKib, 4096U);
  RecordProperty("privateKib", static_cast<int>(privateKib));
  type("\x04");
  waitForEnd();
}

#endif

}  // namespace
}  // namespace vmmhost::kvm
