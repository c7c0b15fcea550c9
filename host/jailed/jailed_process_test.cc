// Real processes in real jails: the program that ipc/jail/spawn's tests start, too.
#include "host/jailed/jailed_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "host/jailed/test_log.h"
#include "tests/support/built.h"
#include "tests/support/children.h"

namespace vmmhost::jailed {
namespace {

class JailedProcessTest : public ::testing::Test {
 protected:
  JailedProcessTest() {
    plan_.tell = [this](Phase phase) { phases_.push_back(phase); };
  }
  ~JailedProcessTest() noexcept override {}  // KJ's members may throw from theirs

  static Plan planOfAnInmate() {
    Plan plan;
    plan.name = "inmate";
    plan.executable.reset(::open(tests::built("bin/jail-inmate").c_str(), O_RDONLY | O_CLOEXEC));
    plan.argv = {"jail-inmate"};
    plan.jail.uid = ::geteuid() == 0 ? 0x76489998 : ::geteuid();
    plan.jail.gid = ::geteuid() == 0 ? 0x76489998 : ::getegid();
    plan.group = Group{"jailed-test-" + std::to_string(::getpid()), std::uint64_t{16} << 20, 8, {}};
    return plan;
  }

  JailedProcess& start() {
    process_ = std::make_unique<JailedProcess>(io_, std::move(plan_), log_.log());
    return *process_;
  }
  // From now on it can be given orders.
  void talk() { socket_ = io_.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(process_->takeSocket().release())); }
  kj::Promise<std::uint32_t> order(char what) {
    auto sent = kj::heapArray<char>(1);
    sent[0] = what;
    auto answer = kj::heap<std::uint32_t>(0);
    auto& number = *answer;
    return socket_->write(sent.begin(), 1)
        .attach(kj::mv(sent))
        .then([this, &number]() { return socket_->read(&number, sizeof(number)); })
        .then([&number]() { return number; })
        .attach(kj::mv(answer));
  }
  // Started, and confined by these orders.
  kj::Promise<void> confine(char greeting = 'u', char tightening = 't') {
    return process_->confine(order(greeting).ignoreResult(),
                             [this, tightening]() { return order(tightening).ignoreResult(); });
  }
  JailedProcess& startAndConfine() {
    start();
    talk();
    confine().wait(io_.waitScope);
    return *process_;
  }
  JailedProcess::End endAfter(char what) {
    order(what).ignoreResult().catch_([](kj::Exception&&) {}).wait(io_.waitScope);
    process_->onEnd().wait(io_.waitScope);
    return process_->end().value();
  }
  template <typename T>
  Error errorOf(kj::Promise<T> promise) {
    return promise
        .then([](auto&&...) { return Error(ErrorCode::kUnknown, "none"); },
              [](kj::Exception&& exception) { return rpc::fromKj(exception); })
        .wait(io_.waitScope);
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  TestLog log_;
  Plan plan_ = planOfAnInmate();
  std::vector<Phase> phases_;
  std::unique_ptr<JailedProcess> process_;
  kj::Own<kj::AsyncIoStream> socket_;
};

TEST_F(JailedProcessTest, isSeenToBeConfined_beforeAndAfterItTightensItsJail) {
  plan_.policy = "worker-static, as a test has it";
  JailedProcess& process = startAndConfine();
  EXPECT_EQ(phases_, (std::vector{Phase::kExecuted, Phase::kGreeted, Phase::kVerified, Phase::kConfined}));
  const std::vector<std::string>& verified = process.verified();
  for (const char* part : {"non-dumpable", "seccomp policy: worker-static, as a test has it"}) {
    EXPECT_NE(std::find(verified.begin(), verified.end(), part), verified.end()) << part;
  }
  process.verify(true);
  EXPECT_FALSE(process.end());
}

TEST_F(JailedProcessTest, descriptorsOfThePlan_areThereAndClosedHere) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  plan_.descriptors.push_back({Fd(ends[1]), 7});
  startAndConfine();
  EXPECT_EQ(order('n').wait(io_.waitScope), 5u);
  char byte;
  EXPECT_EQ(::read(reader.get(), &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  endAfter('e');
  EXPECT_EQ(::read(reader.get(), &byte, 1), 0);  // nobody else had the other end
}

TEST_F(JailedProcessTest, processThatDoesNotTightenItsJail_isNamedAndKilled) {
  plan_.declaredBy = "this test declared";
  plan_.unconfinedHint = "mend it";
  start();
  talk();
  const Error error = errorOf(confine('u', 'u'));
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_EQ(error.message(), "the inmate is not confined as this test declared: it is dumpable");
  EXPECT_EQ(error.hint(), "mend it");
  process_->onEnd().wait(io_.waitScope);
  EXPECT_EQ(process_->describeEnd(), "the inmate was ended by SIGKILL");
  EXPECT_EQ(phases_.back(), Phase::kVerified);
}

TEST_F(JailedProcessTest, processThatDoesNotEndItsSetUp_isNamedAndKilled) {
  plan_.jail.setupCapabilities = {CAP_NET_ADMIN};
  start();
  talk();
  const Error error = errorOf(confine());
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find("1 seccomp filters, expected at least 2"), std::string::npos) << error.message();
  process_->onEnd().wait(io_.waitScope);
}

TEST_F(JailedProcessTest, programsOfThePlan_areAmongWhatIsVerified) {
  plan_.jail.rlimits = {{RLIMIT_NPROC, 8}};
  plan_.programs.emplace_back(::open(tests::built("bin/jail-program").c_str(), O_RDONLY | O_CLOEXEC));
  start();
  talk();
  order('u').wait(io_.waitScope);
  process_->verify(false);
  const std::vector<std::string>& verified = process_->verified();
  EXPECT_NE(std::find(verified.begin(), verified.end(), "descriptors: exactly 0 1 2 3 257"), verified.end());
}

TEST_F(JailedProcessTest, processThatWasOnceConfined_isLookedAtAnew) {
  start();
  talk();
  auto seen = kj::newPromiseAndFulfiller<void>();
  auto confined = process_
                      ->confine(order('u').ignoreResult(),
                                [&seen]() {
                                  seen.fulfiller->fulfill();
                                  return kj::Promise<void>(kj::NEVER_DONE);
                                })
                      .eagerlyEvaluate(nullptr);
  seen.promise.wait(io_.waitScope);
  EXPECT_THROW(process_->verify(true), Error);
  process_->onEnd().wait(io_.waitScope);
  EXPECT_EQ(process_->end()->exit.value, SIGKILL);
}

TEST_F(JailedProcessTest, greetingThatDoesNotCome_hasADeadline) {
  plan_.deadline = std::chrono::milliseconds(20);
  start();
  const Error error = errorOf(process_->confine(kj::NEVER_DONE, []() { return kj::READY_NOW; }));
  EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(error.message(), "the inmate's hello took longer than 20 ms");
}

TEST_F(JailedProcessTest, executableThatIsNone_isNamed) {
  plan_.executable.reset(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  start();
  const Error error = errorOf(process_->confine(kj::NEVER_DONE, []() { return kj::READY_NOW; }));
  EXPECT_EQ(error.code(), ErrorCode::kConfinement);
  EXPECT_NE(error.message().find("executing the inmate"), std::string::npos) << error.message();
  EXPECT_EQ(phases_, std::vector<Phase>());
}

TEST_F(JailedProcessTest, end_isToldOnce_withItsCause) {
  startAndConfine();
  unsigned told = 0;
  auto first = process_->onEnd().then([&]() { ++told; }).eagerlyEvaluate(nullptr);
  auto second = process_->onEnd().then([&]() { ++told; }).eagerlyEvaluate(nullptr);
  const JailedProcess::End end = endAfter('e');
  first.wait(io_.waitScope);
  second.wait(io_.waitScope);
  process_->kill();
  process_->onEnd().wait(io_.waitScope);
  EXPECT_EQ(told, 2u);
  EXPECT_EQ(end.exit.kind, spawn::Child::Exit::Kind::kCode);
  EXPECT_FALSE(end.isOutOfMemory);
  EXPECT_EQ(process_->describeEnd(), "the inmate exited with code 7");
}

// Whether the kernel writes it down depends on the system, and on how many it has written just now.
TEST_F(JailedProcessTest, forbiddenCall_isToldAsSuch_andNamedWhereTheKernelsLogHasIt) {
  const Fd kernelLog(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (kernelLog) {
    ::lseek(kernelLog.get(), 0, SEEK_END);
  }
  plan_.kernelLogPatience = std::chrono::seconds(2);
  startAndConfine();
  const JailedProcess::End end = endAfter('s');
  EXPECT_EQ(end.exit.value, SIGSYS);
  const std::string told = "the inmate was ended by SIGSYS (a system call that its jail forbids)";
  if (end.forbidden) {
    EXPECT_EQ(end.forbidden->number, SYS_socket);
    EXPECT_EQ(process_->describeEnd(), told + ": " + describe(*end.forbidden));
    return;
  }
  EXPECT_EQ(process_->describeEnd(), told);
  std::string record(8192, '\0');
  const std::string pid = " pid=" + std::to_string(process_->pid()) + " ";
  for (ssize_t got = 0; kernelLog && (got = ::read(kernelLog.get(), record.data(), record.size())) > 0;) {
    EXPECT_EQ(record.substr(0, static_cast<std::size_t>(got)).find(pid), std::string::npos) << "not seen: " << record;
  }
  std::printf("the kernel's log cannot be read here, or has it not: it writes few such records at a time\n");
}

#if defined(__x86_64__)
TEST_F(JailedProcessTest, forbiddenCall_isExplainedBeforeTheEnd_whereThePlanSaysSo) {
  plan_.explainsForbiddenCalls = true;
  plan_.forbiddenCallHint = "not to be seen";
  startAndConfine();
  EXPECT_EQ(endAfter('f').exit.value, SIGSYS);
  const std::string call = "process " + std::to_string(process_->pid()) + " (jail-inmate): system call 57 (fork) with ";
  const std::string told = process_->describeEnd();
  EXPECT_EQ(told.find("the inmate was ended by SIGSYS (a system call that its jail forbids): " + call), 0u) << told;
  EXPECT_NE(told.find("; allowed by the grant programs"), std::string::npos) << told;
  const auto lines = log_.lines();
  EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
    return line.starts_with("error jail: a filter ended " + call);
  }));
  const Error error = process_->explain(KJ_EXCEPTION(DISCONNECTED, "gone")).wait(io_.waitScope);
  EXPECT_EQ(error.message(), told);
  EXPECT_EQ(error.hint(), "");
}

TEST_F(JailedProcessTest, tracedProcess_isAsConfinedAsOtherwise_andEndsAsOtherwise) {
  for (const char end : {'e', 'k', 'd'}) {
    plan_ = planOfAnInmate();
    plan_.explainsForbiddenCalls = true;
    startAndConfine();
    process_->verify(true);
    if (end == 'e') {
      EXPECT_EQ(endAfter('e').exit.value, 7);
      EXPECT_EQ(process_->describeEnd(), "the inmate exited with code 7");
    } else if (end == 'k') {
      process_->kill();
      process_->onEnd().wait(io_.waitScope);
      EXPECT_EQ(process_->describeEnd(), "the inmate was ended by SIGKILL");
    }
    process_ = nullptr;  // with 'd' it lives until now
    EXPECT_EQ(tests::children(), std::set<pid_t>());
  }
}

TEST_F(JailedProcessTest, tracedProcessOfGrants_isExplainedByThem) {
  plan_.explainsForbiddenCalls = true;
  plan_.jail.seccompPolicy = seccomp::PolicyChoice::ofGrants(seccomp::grant::kKvm);
  startAndConfine();
  EXPECT_NE(std::find(process_->verified().begin(), process_->verified().end(), "seccomp policy: grants: kvm"),
            process_->verified().end());
  EXPECT_EQ(endAfter('p').exit.value, SIGSYS);
  EXPECT_NE(process_->describeEnd().find("(epoll_create1) with 0x0,"), std::string::npos) << process_->describeEnd();
  EXPECT_NE(process_->describeEnd().find("allowed by the grant epolls"), std::string::npos);
}
#endif

TEST_F(JailedProcessTest, forbiddenCallThatIsNotExplained_hasTheHint) {
  plan_.forbiddenCallHint = "have it explained";
  startAndConfine();
  endAfter('s');
  const Error error = process_->explain(KJ_EXCEPTION(DISCONNECTED, "gone")).wait(io_.waitScope);
  EXPECT_EQ(error.hint(), "have it explained");
}

TEST_F(JailedProcessTest, wantOfMemory_isToldAsSuch) {
  startAndConfine();
  if (!process_->groupFault().empty()) {
    GTEST_SKIP() << "no control group can be made here: " << process_->groupFault();
  }
  EXPECT_TRUE(endAfter('g').isOutOfMemory);
  const Error error = process_->explain(KJ_EXCEPTION(DISCONNECTED, "gone")).wait(io_.waitScope);
  EXPECT_EQ(error.code(), ErrorCode::kWorkerDied);
  EXPECT_EQ(error.message(), "the inmate was ended by SIGKILL; its control group was out of memory");
}

TEST_F(JailedProcessTest, failedCall_isExplainedByTheEnd) {
  start();
  // The inmate knows nothing of messages, and exits.
  auto client = process_->connect(rpc::Limits()).bootstrap<capnp::Capability>();
  auto confined = process_->confine(client.whenResolved(), []() { return kj::READY_NOW; });
  const Error error = confined
                          .then([]() { return kj::Promise<Error>(Error(ErrorCode::kUnknown, "none")); },
                                [this](kj::Exception&& exception) { return process_->explain(kj::mv(exception)); })
                          .wait(io_.waitScope);
  EXPECT_EQ(error.code(), ErrorCode::kWorkerDied);
  EXPECT_EQ(error.message(), "the inmate exited with code 1");
  EXPECT_TRUE(process_->onDisconnect().poll(io_.waitScope));
  EXPECT_FALSE(process_->isStuck());
}

TEST_F(JailedProcessTest, logWithoutEnd_isReadButNotKept) {
  startAndConfine();
  const auto began = std::chrono::steady_clock::now();
  order('l').wait(io_.waitScope);
  const JailedProcess::End end = endAfter('e');
  const auto took = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began);
  std::uint64_t bytes = 0;
  for (const std::string& line : log_.lines()) {
    bytes += line.starts_with("warning inmate: nobody") ? 62 : 0;
  }
  EXPECT_GT(bytes, 0u);
  EXPECT_LE(bytes, ProcessLog::kBytesPerSecond * (static_cast<std::uint64_t>(took.count()) + 2));
  EXPECT_EQ(process_->lastLog().size(), ProcessLog::kKeptLines);
  EXPECT_EQ(process_->lastLog().back(), "the last");
  EXPECT_EQ(end.exit.value, 7);
}

TEST_F(JailedProcessTest, destroyedWhileItStarts_leavesNothing) {
  namespace fs = std::filesystem;
  const auto descriptors = []() {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = descriptors();
  std::vector<std::string> folders;
  for (int turns = 0; turns < 4; ++turns) {
    Plan plan = planOfAnInmate();
    plan.group->announce = [&](const std::vector<std::string>& told) { folders = told; };
    auto process = std::make_unique<JailedProcess>(io_, std::move(plan), log_.log());
    EXPECT_EQ(tests::children().count(process->pid()), 1u);
    auto confined = process->confine(kj::NEVER_DONE, []() { return kj::READY_NOW; });
    for (int turn = 0; turn < turns; ++turn) {
      confined.poll(io_.waitScope);
    }
  }
  EXPECT_EQ(tests::children(), std::set<pid_t>());
  EXPECT_EQ(descriptors(), before);
  EXPECT_FALSE(folders.empty());
  for (const std::string& folder : folders) {
    EXPECT_FALSE(fs::exists(folder)) << folder;
  }
}

}  // namespace
}  // namespace vmmhost::jailed
