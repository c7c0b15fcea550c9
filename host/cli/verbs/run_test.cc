// vmmhost run in front of a fake supervisor: what a person and a script see on every way out.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "host/cli/test_command.h"

namespace vmmhost::cli {
namespace {

using Json = nlohmann::json;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> runOf(const std::string& kernel, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"run", "--name", "web", "--backend", "fake", "--kernel", kernel};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

termios modeOf(const Fd& terminal) {
  termios mode{};
  EXPECT_EQ(::tcgetattr(terminal.get(), &mode), 0);
  return mode;
}

// The terminal keeps its mode only while somebody has its other side open.
class TerminalRun {
 public:
  explicit TerminalRun(const TestCommand& command, const std::string& kernel)
      : running(command.start(runOf(kernel), true)) {
    slave.reset(::open(::ptsname(running.out.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(slave);
  }
  bool isRaw() const { return (modeOf(slave).c_lflag & (ICANON | ECHO | ISIG)) == 0; }

  Fd slave;
  TestCommand::Running running;
};

TEST(Run, guestPowersOff_itsOutputIsWholeAndTheCodeIs0) {
  const TestCommand command;
  const auto result = command.run(runOf("hello"));
  EXPECT_EQ(result.exitCode, 0);
  EXPECT_EQ(result.out, "hello from fake\r\n");
  EXPECT_EQ(result.err, "");
}

TEST(Run, muchOutput_isPrintedBeforeTheEnd) {
  const TestCommand command;
  const auto result = command.run(runOf("flood"));
  EXPECT_EQ(result.exitCode, 0);
  EXPECT_TRUE(result.out == std::string(1000000, 'x') + "\n") << result.out.size() << " bytes, or others";
}

TEST(Run, autoBackend_saysItsChoiceInOneLine) {
  const TestCommand command;
  const auto result = command.run({"run", "--kernel", "hello"});
  EXPECT_EQ(result.exitCode, 0);
  EXPECT_EQ(result.err, "vmmhost: fake: chosen because it is the only one\n");
}

TEST(Run, input_reachesTheGuestAndItsEndEndsNothing) {
  const TestCommand command;
  auto running = command.start(runOf("echo"));
  ASSERT_TRUE(running.awaitOutput("hello from fake"));
  running.type("some text\n");
  ASSERT_TRUE(running.awaitOutput("some text"));
  running.in.reset();
  running.signal(SIGTERM);  // it is still there to be ended
  EXPECT_EQ(running.finish().exitCode, 143);
}

TEST(Run, inputFromAFile_isForwarded) {
  const TestCommand command;
  EXPECT_EQ(command.run(runOf("echo"), "line\nquit\n").out, "hello from fake\r\nline\nquit\n");
}

TEST(Run, guestPanics_codeIs1AndTheCauseIsSaid) {
  const TestCommand command;
  const auto result = command.run(runOf("echo"), "panic\n");
  EXPECT_EQ(result.exitCode, 1);
  EXPECT_EQ(result.err, "vmmhost: VM web: panicked\n");
}

TEST(Run, json_isOneDocumentWithTheConsoleOnStandardError) {
  const TestCommand command;
  const auto result = command.run(runOf("hello", {"--json"}));
  EXPECT_EQ(result.exitCode, 0);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["name"], "web");
  EXPECT_EQ(json["exitCode"], 0);
  EXPECT_EQ(json["outcome"]["kind"], "guest");
  EXPECT_EQ(json["outcome"]["cause"], "powerOff");
  EXPECT_EQ(result.err, "hello from fake\r\n");
}

TEST(Run, startFailures_haveTheirMessageAndCode) {
  const TestCommand command;
  const auto missing = command.run(runOf("missing"));
  EXPECT_EQ(missing.exitCode, 127);
  EXPECT_EQ(missing.err, "vmmhost: boot.kernel: there is no file missing\nhint: look again\n");
  const auto unusable = command.run(runOf("unusable"));
  EXPECT_EQ(unusable.exitCode, 126);
  EXPECT_EQ(unusable.err, "vmmhost: backend fake cannot be used here\n");
  const auto json = command.run(runOf("missing", {"--json"}));
  EXPECT_EQ(json.exitCode, 127);
  EXPECT_EQ(Json::parse(json.out)["error"]["code"], "notFound");
  EXPECT_EQ(json.err, "");
}

TEST(Run, supervisorDies_isReportedWithItsSignal) {
  const TestCommand command;
  const auto result = command.run(runOf("dies"), "die\n");
  EXPECT_EQ(result.exitCode, 125);
  EXPECT_TRUE(contains(result.err, "the supervisor of VM web was ended by signal 9")) << result.err;
}

TEST(Run, supervisorCannotBeExecuted_isOurOwnError) {
  const TestCommand command;
  ::chmod((command.folder() + "/" VMMHOST_LIBEXEC "/vmmhost-supervisor").c_str(), 0600);
  const auto result = command.run(runOf("hello"));
  EXPECT_EQ(result.exitCode, 125);
  EXPECT_TRUE(contains(result.err, "vmmhost-supervisor")) << result.err;
}

TEST(Run, signals_endTheVm) {
  const TestCommand command;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    auto running = command.start(runOf("echo"));
    ASSERT_TRUE(running.awaitOutput("hello"));
    running.signal(signal);
    EXPECT_EQ(running.finish().exitCode, 128 + signal);
  }
  EXPECT_TRUE(command.awaitReport("stop 3 SIGINT"));
  EXPECT_TRUE(command.awaitReport("stop 3 SIGTERM"));
  EXPECT_TRUE(command.awaitReport("stop 3 SIGHUP"));
}

// timeout(1) sends its signal to the command and to its process group.
TEST(Run, signalThatComesTwiceAtOnce_isOne_andALaterOneGivesUpWaiting) {
  const TestCommand command;
  auto running = command.start(runOf("stays"));
  ASSERT_TRUE(running.awaitOutput("hello"));
  const auto begin = std::chrono::steady_clock::now();
  running.signal(SIGINT);
  ASSERT_TRUE(command.awaitReport("stop 3 SIGINT"));
  running.signal(SIGINT);
  siginfo_t ended{};
  while (ended.si_pid == 0 && std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(500)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(running.pid), &ended, WEXITED | WNOHANG | WNOWAIT), 0);
  }
  // On a busy machine the one may have come too late for an echo of the other.
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(200));
  if (ended.si_pid == 0) {
    running.signal(SIGINT);
  }
  const auto result = running.finish();
  EXPECT_EQ(result.exitCode, 125);
  EXPECT_TRUE(contains(result.err, "interrupted by SIGINT while the VM was being ended")) << result.err;
}

TEST(Run, signalDuringTheStart_endsTheVm) {
  const TestCommand command;
  auto running = command.start(runOf("silent", {"--detach"}));
  // The signal must find the command waiting for the start, not still being loaded.
  ASSERT_TRUE(command.awaitReport("hello"));
  running.signal(SIGINT);
  EXPECT_EQ(running.finish().exitCode, 130);
  EXPECT_TRUE(contains(command.report(), "stop 3 SIGINT"));
}

TEST(Run, killedCommand_closesTheLifeline) {
  const TestCommand command;
  auto running = command.start(runOf("echo"));
  ASSERT_TRUE(running.awaitOutput("hello"));
  running.signal(SIGKILL);
  EXPECT_EQ(running.finish().exitCode, 128 + SIGKILL);
  EXPECT_TRUE(command.awaitReport("client gone"));
  EXPECT_FALSE(contains(command.report(), "detach"));
}

TEST(Run, lostOutput_endsTheVm) {
  const TestCommand command;
  auto running = command.start(runOf("echo"));
  ASSERT_TRUE(running.awaitOutput("hello"));
  running.closeOutput();
  running.type("anything\n");
  EXPECT_EQ(running.finish().exitCode, 143) << "what the supervisor says";
  EXPECT_TRUE(command.awaitReport("stop 4 "));
  EXPECT_TRUE(contains(command.report(), "Broken pipe")) << command.report();
}

TEST(Run, detach_printsTheNameAndLeaves) {
  const TestCommand command;
  const auto result = command.run(runOf("echo", {"--detach"}));
  EXPECT_EQ(result.exitCode, 0);
  EXPECT_EQ(result.out, "web\n");
  const auto json = command.run({"run", "--detach", "--json", "--backend", "fake", "--kernel", "echo"});
  EXPECT_EQ(Json::parse(json.out)["name"], "made-up");
  EXPECT_EQ(Json::parse(json.out)["detached"], true);
}

TEST(Run, timings_areATableOnStandardError) {
  const TestCommand command;
  const auto result = command.run(runOf("hello", {"--timings"}));
  EXPECT_EQ(result.out, "hello from fake\r\n");
  EXPECT_TRUE(contains(result.err, "PHASE")) << result.err;
  EXPECT_TRUE(contains(result.err, "worker started")) << result.err;
  EXPECT_TRUE(contains(result.err, "5.00")) << result.err;
}

TEST(RunOnATerminal, isRawWhileAttachedAndAsBeforeAfterTheEnd) {
  const TestCommand command;
  TerminalRun run(command, "echo");
  const termios before = modeOf(run.slave);
  ASSERT_TRUE(run.running.awaitOutput("hello"));
  EXPECT_TRUE(run.isRaw());
  run.running.type("\x03");  // ^C is the guest's
  ASSERT_TRUE(run.running.awaitOutput("\x03"));
  run.running.type("quit");
  EXPECT_EQ(run.running.finish().exitCode, 0);
  EXPECT_EQ(modeOf(run.slave).c_lflag, before.c_lflag);
  EXPECT_EQ(modeOf(run.slave).c_oflag, before.c_oflag);
}

TEST(RunOnATerminal, isRestoredWhenASignalEndsTheCommand) {
  const TestCommand command;
  for (const int signal : {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGSEGV}) {
    TerminalRun run(command, "echo");
    ASSERT_TRUE(run.running.awaitOutput("hello"));
    EXPECT_TRUE(run.isRaw());
    run.running.signal(signal);
    EXPECT_EQ(run.running.finish().exitCode, 128 + signal);
    EXPECT_FALSE(run.isRaw()) << "after signal " << signal;
  }
}

TEST(RunOnATerminal, isRestoredWhenTheSupervisorDies) {
  const TestCommand command;
  TerminalRun run(command, "dies");
  // It dies a moment after it has said so, and only once it was told to.
  ASSERT_TRUE(run.running.awaitOutput("hello"));
  EXPECT_TRUE(run.isRaw());
  run.running.type("die");
  EXPECT_EQ(run.running.finish().exitCode, 125);
  EXPECT_FALSE(run.isRaw());
}

TEST(RunOnATerminal, menuDetaches) {
  const TestCommand command;
  TerminalRun run(command, "echo");
  ASSERT_TRUE(run.running.awaitOutput("hello"));
  run.running.type(
      "\x1d"
      "d");
  const auto result = run.running.finish();
  EXPECT_EQ(result.exitCode, 0);
  EXPECT_TRUE(contains(result.err, "[d]etach, [k]ill, [c]ancel?")) << result.err;
  EXPECT_TRUE(contains(result.err, "vmmhost console web")) << result.err;
  EXPECT_FALSE(run.isRaw());
  EXPECT_TRUE(command.awaitReport("detach\nclient gone"));
}

TEST(RunOnATerminal, menuKills) {
  const TestCommand command;
  TerminalRun run(command, "echo");
  ASSERT_TRUE(run.running.awaitOutput("hello"));
  run.running.type("\x1dk");
  EXPECT_EQ(run.running.finish().exitCode, 143);
  EXPECT_TRUE(command.awaitReport("stop 1 killed from its console"));
}

TEST(RunOnATerminal, menuCancels_andTheKeyItselfCanBeTyped) {
  const TestCommand command;
  TerminalRun run(command, "echo");
  ASSERT_TRUE(run.running.awaitOutput("hello"));
  run.running.type(
      "\x1d"
      "xc"
      "after");
  ASSERT_TRUE(run.running.awaitOutput("after"));
  EXPECT_FALSE(contains(run.running.output(), "\x1d"));
  run.running.type("\x1d\x1d");
  ASSERT_TRUE(run.running.awaitOutput("\x1d"));
  run.running.type("quit");
  EXPECT_EQ(run.running.finish().exitCode, 0);
}

}  // namespace
}  // namespace vmmhost::cli
