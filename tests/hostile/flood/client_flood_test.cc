// Hostile clients, of the same user, on the control socket of a supervisor that has other work to do: it is run by
// `vmmhost run`, its VM by a worker that does as it is told.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "host/client/control_client.h"
#include "host/runtime/directories.h"
#include "tests/hostile/flood/floods.h"
#include "tests/hostile/flood/limits.h"
#include "tests/hostile/flood/measure.h"
#include "tests/support/built.h"

namespace vmmhost::hostile {

void PrintTo(const Flood& flood, std::ostream* out) {
  *out << flood.name;
}

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr char kName[] = "attacked";

// A program with its output, or without.
class Program {
 public:
  Program(std::vector<std::string> arguments, const std::vector<std::string>& environment) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      std::abort();
    }
    output_.reset(ends[0]);
    const Fd writer(ends[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(::open("/dev/null", O_RDONLY), 0);
      ::dup2(writer.get(), 1);
      ::dup2(writer.get(), 2);
      std::vector<char*> argv;
      std::vector<char*> envp;
      for (std::string& argument : arguments) {
        argv.push_back(argument.data());
      }
      for (const std::string& variable : environment) {
        envp.push_back(const_cast<char*>(variable.c_str()));
      }
      argv.push_back(nullptr);
      envp.push_back(nullptr);
      ::execve(argv[0], argv.data(), envp.data());
      ::_exit(98);
    }
  }
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  bool isOver() {
    pollfd ready = {output_.get(), POLLIN, 0};
    return ::poll(&ready, 1, 0) != 0;  // it speaks at its end, or has ended
  }
  // Waits for its end; what it said.
  std::string finish() {
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = ::read(output_.get(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<std::size_t>(got));
    }
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    exitCode_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return text;
  }
  int exitCode() const { return exitCode_; }

 private:
  Fd output_;
  pid_t pid_ = -1;
  int exitCode_ = -1;
};

// A supervisor with its VM in folders of their own, and a client that behaves.
class AttackedSupervisor {
 public:
  AttackedSupervisor() {
    std::string pattern = (fs::temp_directory_path() / "vmmhost-flood-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    for (const char* name : {"/run", "/state"}) {
      fs::create_directory(folder_ + name);
      ::chmod((folder_ + name).c_str(), 0700);
    }
    std::ofstream(folder_ + "/vm.json")
        << R"({"boot":{"kernel":")" << folder_ << R"(/vm.json"},"memory":{"size":"64M"},)"
        << R"("platform":{"options":[{"name":"attack","value":"calm"},{"name":"moment","value":"0"}]}})";
    Program run({tests::built("stage/bin/vmmhost"), "run", "--backend", "flood", "--detach", "--rm", "--name", kName,
                 "-f", folder_ + "/vm.json"},
                {"VMMHOST_RUNTIME_DIR=" + folder_ + "/run", "VMMHOST_STATE_DIR=" + folder_ + "/state",
                 "HOME=" + folder_, "PATH=/usr/bin:/bin", "VMMHOST_PLUGIN_PATH=" + tests::built("lib/flood-plugins")});
    const std::string said = run.finish();
    if (run.exitCode() != 0) {
      throw Error(ErrorCode::kInternal, "it did not start: " + said);
    }
    directories_ = runtime::Directories::open({folder_ + "/run", folder_ + "/state"});
    client_ = connect();
    auto response = client::await(io_, client_->info());
    supervisor_ = response.getInfo().getSupervisorPid();
    worker_ = response.getInfo().getWorkerPid();
    process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, supervisor_, 0)));
  }
  ~AttackedSupervisor() {
    client_.reset();
    if (process_) {
      ::kill(supervisor_, SIGTERM);
      hasGone(5s);
    }
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  std::unique_ptr<client::ControlClient> connect() {
    return std::make_unique<client::ControlClient>(io_, runtime::connectControl(directories_, runtime::vmName(kName)),
                                                   kName);
  }
  client::ControlClient& client() { return *client_; }
  kj::AsyncIoContext& io() { return io_; }
  pid_t supervisor() const { return supervisor_; }
  pid_t worker() const { return worker_; }
  std::string socketPath() const { return folder_ + "/run/" + kName + "/control"; }

  std::uint64_t ticks() {
    auto response = client::await(io_, client_->info());
    const auto counters = response.getInfo().getCounters();
    return counters.getValues().size() == 0 ? 0 : counters.getValues()[0];
  }
  void pauseAndResume() {
    client::await(io_, client_->pause());
    client::await(io_, client_->resume());
  }
  // Somebody who comes meanwhile, and tries again when told to: how long until the answer.
  std::chrono::milliseconds newcomer() {
    const auto begin = Clock::now();
    for (;;) {
      try {
        auto client = connect();
        client::await(io_, client->hello());
        client::await(io_, client->info());
        break;
      } catch (const Error&) {
        if (Clock::now() - begin > 10s) {
          throw;
        }
        wait(1ms);
      }
    }
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
  }
  void wait(std::chrono::milliseconds time) {
    io_.provider->getTimer().afterDelay(time.count() * kj::MILLISECONDS).wait(io_.waitScope);
  }
  // True when the supervisor has ended within that time.
  bool hasGone(std::chrono::milliseconds limit) {
    pollfd ready = {process_.get(), POLLIN, 0};
    const bool gone = ::poll(&ready, 1, static_cast<int>(limit.count())) == 1;
    if (gone) {
      process_.reset();
    }
    return gone;
  }
  // What is left of it: nothing, if all is well.
  std::string leftovers() const {
    std::string found;
    for (const auto& entry : fs::directory_iterator(folder_ + "/run")) {
      // Leases of user ids stay: a file each, without an owner.
      found += entry.path().filename() == kName ? "its entry; " : "";
    }
    return found + (::kill(worker_, 0) == 0 ? "its worker; " : "");
  }

 private:
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::string folder_;
  runtime::Directories directories_;
  std::unique_ptr<client::ControlClient> client_;
  pid_t supervisor_ = -1;
  pid_t worker_ = -1;
  Fd process_;
};

struct Attacked {
  unsigned long long connections = 0;
  unsigned long long cuts = 0;
  unsigned long long bytes = 0;
};

Attacked resultOf(Program& attack) {
  Attacked attacked;
  const std::string text = attack.finish();
  EXPECT_EQ(std::sscanf(text.c_str(), "%llu %llu %llu", &attacked.connections, &attacked.cuts, &attacked.bytes), 3)
      << text;
  return attacked;
}

std::unique_ptr<Program> attackWith(const std::string& flood, AttackedSupervisor& attacked,
                                    std::chrono::milliseconds time, unsigned connections, unsigned total = 0) {
  return std::make_unique<Program>(
      std::vector<std::string>{tests::built("bin/flood-client"), attacked.socketPath(), flood,
                               std::to_string(time.count()), std::to_string(total), std::to_string(connections)},
      std::vector<std::string>());
}

// What must hold while the attack goes on, and after it.
Attacked endure(AttackedSupervisor& attacked, const std::string& flood, std::chrono::milliseconds time,
                unsigned total = 0) {
  const std::size_t descriptors = openDescriptors(attacked.supervisor());
  EXPECT_GT(descriptors, 3u) << "they are there to be counted";
  EXPECT_GT(ownBytes(attacked.supervisor()), std::uint64_t{1} << 16) << "and memory to be measured";
  // What the first of each thing takes is no growth.
  attacked.newcomer();
  attacked.pauseAndResume();
  client::await(attacked.io(), attacked.client().console(0, false));
  const std::uint64_t ticks = attacked.ticks();
  std::chrono::milliseconds slowest{0};
  Attacked result;
  {
    MemoryWatch memory(attacked.supervisor());
    Lateness lateness({attacked.supervisor()});
    const auto attack = attackWith(flood, attacked, time, findFlood(flood)->connections, total);
    for (unsigned round = 0; round == 0 || !attack->isOver(); ++round) {
      lateness.measure([&] { client::await(attacked.io(), attacked.client().hello()); });
      // Without the worker's memory: that is measured on a thread, which waits for a processor like any.
      lateness.measure(
          [&] { client::await(attacked.io(), attacked.client().info(60s, client::ControlClient::Memory::kLeftOut)); });
      if (round % 4 == 0) {
        attacked.pauseAndResume();
      }
      if (round % 16 == 0) {
        slowest = std::max(slowest, attacked.newcomer());
      }
      attacked.wait(1ms);
    }
    result = resultOf(*attack);
    std::printf("grew %llu KiB; %s; slowest newcomer %lld ms; %llu connections, %llu cut, %llu bytes\n",
                static_cast<unsigned long long>(memory.growth() / 1024), lateness.text().c_str(),
                static_cast<long long>(slowest.count()), result.connections, result.cuts, result.bytes);
    if (kFiguresAreJudged) {
      EXPECT_LT(memory.growth(), kMaxGrowth);
      EXPECT_LT(lateness.worst(), kMaxLateness) << lateness.text();
    }
  }
  EXPECT_LT(slowest, kMaxNewcomer);
  EXPECT_GT(attacked.ticks(), ticks) << "the VM stood still";
  for (unsigned tries = 0; openDescriptors(attacked.supervisor()) > descriptors && tries < 200; ++tries) {
    attacked.wait(10ms);
  }
  EXPECT_LE(openDescriptors(attacked.supervisor()), descriptors);
  return result;
}

void endAndLookAround(AttackedSupervisor& attacked) {
  client::await(attacked.io(), attacked.client().stop(schema::EndKind::STOPPED, "the test is over"));
  EXPECT_TRUE(attacked.hasGone(5s));
  EXPECT_EQ(attacked.leftovers(), "");
}

class ClientFlood : public ::testing::TestWithParam<Flood> {};

TEST_P(ClientFlood, costsTheSupervisorLittle_andOthersNothing) {
  const Flood& flood = GetParam();
  AttackedSupervisor attacked;
  const Attacked result = endure(attacked, flood.name, floodTime());
  EXPECT_GE(result.connections, flood.connections);
  if (flood.onControl == End::kCut) {
    EXPECT_EQ(result.cuts, result.connections);
  }
  endAndLookAround(attacked);
}

std::string testName(const ::testing::TestParamInfo<Flood>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Answers, ClientFlood, ::testing::ValuesIn(answerFloods()), testName);
INSTANTIATE_TEST_SUITE_P(Nonsense, ClientFlood, ::testing::ValuesIn(nonsenseFloods()), testName);
INSTANTIATE_TEST_SUITE_P(Malformed, ClientFlood, ::testing::ValuesIn(malformedFloods()), testName);
INSTANTIATE_TEST_SUITE_P(Control, ClientFlood, ::testing::ValuesIn(controlFloods()), testName);

TEST(ClientStorm, tenThousandConnections_leaveNothingBehind) {
  AttackedSupervisor attacked;
  EXPECT_GE(endure(attacked, "connect-and-close", floodTime(), 10000).connections, 10000u);
  endAndLookAround(attacked);
}

TEST(ClientStorm, stopInTheMiddle_isAnswered) {
  AttackedSupervisor attacked;
  std::vector<std::unique_ptr<Program>> attacks;
  for (const char* flood : {"never-reads", "info-storm", "half-open", "unfinished-calls", "watch-and-never-read",
                            "consoles-and-never-read", "ask-and-close"}) {
    attacks.push_back(attackWith(flood, attacked, 5000ms, 8));
  }
  attacked.wait(150ms);
  const auto begin = Clock::now();
  client::await(attacked.io(), attacked.client().stop(schema::EndKind::STOPPED, "in the middle"));
  // Consoles that nobody reads are given two seconds to take the last of their output.
  EXPECT_LT(Clock::now() - begin, 4s);
  EXPECT_TRUE(attacked.hasGone(5s));
  EXPECT_EQ(attacked.leftovers(), "");
}

TEST(ClientStorm, manyProcesses_leaveRoomForOthers) {
  AttackedSupervisor attacked;
  std::vector<std::unique_ptr<Program>> attacks;
  for (int i = 0; i < 8; ++i) {
    attacks.push_back(attackWith("bootstrap-alone", attacked, 5000ms, 16));
  }
  attacked.wait(200ms);
  EXPECT_LT(attacked.newcomer(), kMaxNewcomer);
  attacks.clear();
  endAndLookAround(attacked);
}

}  // namespace
}  // namespace vmmhost::hostile
