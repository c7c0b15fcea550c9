// A program that embeds the host for long: a hundred VMs, good ones and faulty ones, leave it as they found it.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "tests/support/built.h"
#include "tests/support/children.h"
#include "tests/support/control_groups.h"
#include "tests/support/forbidden_calls.h"
#include "tests/support/refusal.h"
#include "vmmhost/host.h"

namespace vmmhost {
namespace {

namespace fs = std::filesystem;

constexpr int kVms = 100;

std::ptrdiff_t entries(const char* folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

// Lines of /proc/self/maps: what is loaded or mapped again and again shows here.
std::ptrdiff_t mappings() {
  std::ifstream maps("/proc/self/maps");
  return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
}

// The control groups that are called as VMs of this process are.
std::set<std::string> controlGroups() {
  return tests::controlGroups("-" + std::to_string(::getpid()));
}

class EmbeddingTest : public testing::Test {
 protected:
  EmbeddingTest() {
    char folder[] = "/tmp/vmmhost-embedding-XXXXXX";
    folder_ = ::mkdtemp(folder);
    options_.installation = tests::built("stage/bin/vmmhost");
    options_.pluginPath = tests::built("lib/fake-plugins");
    options_.logFile = folder_ + "/host.log";
  }
  ~EmbeddingTest() override {
    EXPECT_TRUE(fs::exists(options_.logFile));
    tests::expectNoForbiddenCall(options_.logFile);
    fs::remove_all(folder_);
  }

  static std::string config(const std::string& guest, const std::string& commandLine) {
    return R"({"boot":{"kernel":")" + tests::built("guests/" + guest) + R"(.elf","cmdline":")" + commandLine +
           R"("},"memory":{"size":"8M"}})";
  }

  // One VM of a kind that the number chooses.
  static void runOne(Host& host, int number) {
    VmOptions options;
    options.backend = "fake";
    switch (number % 5) {
      case 0: {
        auto vm = host.start(config("hello", ""), options).get();
        EXPECT_EQ(vm->wait().get().cause, "powerOff");
        break;
      }
      case 1: {
        auto vm = host.start(config("serial_echo", ""), options).get();
        const Fd console = vm->console(65536, true).get();
        EXPECT_EQ(::send(console.get(), "x\x04", 2, 0), 2);
        EXPECT_EQ(vm->wait().get().kind, "guest");
        break;
      }
      case 2: {
        auto vm = host.start(config("loop", ""), options).get();
        // What is looked for at the end is there while a VM lives.
        EXPECT_EQ(tests::children().size(), 1u);
        EXPECT_EQ(controlGroups().empty(),
                  vm->describe().get().find("not limited by a control group") != std::string::npos);
        vm->pause().get();
        vm->resume().get();
        vm->reset().get();
        EXPECT_EQ(vm->stop().get().kind, "stopped");
        break;
      }
      case 3:
        tests::expectRefusal("the worker exited with code 7",
                             [&] { host.start(config("hello", "fault=exit:create"), options).get(); });
        break;
      default: {
        auto vm = host.start(config("loop", "fault=die:running"), options).get();
        EXPECT_EQ(vm->wait().get().kind, "workerDied");
        break;
      }
    }
  }

  std::string folder_;
  HostOptions options_;
};

TEST_F(EmbeddingTest, aHundredVms_leaveDescriptorsThreadsAndMappingsAsTheyWere) {
  Host host(options_);
  for (int number = 0; number < 10; ++number) {  // what is made once is made now
    runOne(host, number);
  }
  const auto descriptors = entries("/proc/self/fd");
  const auto threads = entries("/proc/self/task");
  const auto mapped = mappings();
  for (int number = 0; number < kVms; ++number) {
    runOne(host, number);
  }
  EXPECT_EQ(entries("/proc/self/fd"), descriptors);
  EXPECT_EQ(entries("/proc/self/task"), threads);
  EXPECT_LE(mappings(), mapped + 5) << "the heap may have grown a little";
  EXPECT_EQ(controlGroups(), std::set<std::string>{});
  EXPECT_EQ(tests::children(), std::set<pid_t>{});
}

TEST_F(EmbeddingTest, hostsThatComeAndGo_leaveDescriptorsAndThreadsAsTheyWere) {
  { Host host(options_); }
  const auto descriptors = entries("/proc/self/fd");
  const auto threads = entries("/proc/self/task");
  for (int number = 0; number < 20; ++number) {
    Host host(options_);
    runOne(host, number);
  }
  EXPECT_EQ(entries("/proc/self/fd"), descriptors);
  EXPECT_EQ(entries("/proc/self/task"), threads);
}

}  // namespace
}  // namespace vmmhost
