// One host process with a neighbour VM, while another VM makes one attack after the other: what the host has afterwards
// is what it had before. And that the plans of the hostile backend are those of the backends whose jails it stands for.
#include "vmmhost/host.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "host/config/json.h"
#include "host/plugin/registry.h"
#include "tests/hostile/attack.h"
#include "tests/support/built.h"

namespace vmmhost::hostile {

// GoogleTest finds it by the namespace of its argument.
void PrintTo(Jail jail, std::ostream* out) {
  *out << jailName(jail);
}

namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

constexpr std::size_t kMaxGrowth = std::size_t{4} << 20;

std::size_t residentBytes() {
  ::malloc_trim(0);
  std::ifstream file("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

long entries(const char* folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

std::string configOf(const char* attack, const char* moment, Jail jail, bool hasDisk = true) {
  return std::string(R"({"boot":{"kernel":"kernel"},"memory":{"size":"64M"},)") +
         (hasDisk ? R"("disks":[{"file":"disk.img"}],)" : "") + R"("platform":{"options":[{"name":"attack","value":")" +
         attack + R"("},{"name":"moment","value":")" + moment + R"("},{"name":"jail","value":")" + jailName(jail) +
         R"("},{"name":"token","value":"host-test"}]}})";
}

class HostUnderAttack : public ::testing::TestWithParam<Jail> {
 protected:
  HostUnderAttack() {
    std::string pattern = (fs::temp_directory_path() / "vmmhost-attacked-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    std::ofstream(folder_ + "/kernel") << "none";
    std::ofstream(folder_ + "/disk.img") << std::string(1 << 20, '\0');
    options_.installation = tests::built("stage/bin/vmmhost");
    options_.pluginPath = tests::built("lib/hostile-plugins");
    vm_.backend = "hostile";
    vm_.workingDirectory = folder_;
    vm_.timeout = seconds(20);
  }
  ~HostUnderAttack() override { fs::remove_all(folder_); }

  // Runs a VM to its end, however that comes.
  void attack(Host& host, const Attack& attack, Moment moment) const {
    try {
      auto vm = host.start(configOf(attack.name, momentName(moment), GetParam()), vm_).get();
      ASSERT_EQ(vm->wait().wait_for(seconds(30)), std::future_status::ready) << attack.name;
    } catch (const Error& error) {
      // hostile_test says which of these it must be.
      const bool isOfTheWorker = error.code() == ErrorCode::kWorkerDied || error.code() == ErrorCode::kConfinement ||
                                 error.code() == ErrorCode::kProtocol;
      EXPECT_TRUE(isOfTheWorker) << attack.name << ": " << error.what();
    }
  }

  std::string folder_;
  HostOptions options_;
  VmOptions vm_;
};

TEST_P(HostUnderAttack, hasTheSameMemoryDescriptorsThreadsAndNeighbourAfterwards) {
  Host host(options_);
  VmOptions forever = vm_;
  forever.timeout = std::chrono::milliseconds(0);
  auto neighbour = host.start(configOf("neighbour", "start", Jail::kStatic, false), forever).get();
  std::size_t made = 0;
  const auto everyAttack = [&] {
    for (const Attack& one : allAttacks()) {
      const Moment moment = isTime(one, Moment::kStart) ? Moment::kStart : Moment::kConstructor;
      if (!isTime(one, moment)) {
        continue;
      }
      attack(host, one, moment);
      ++made;
      auto answer = neighbour->describe();
      ASSERT_EQ(answer.wait_for(seconds(10)), std::future_status::ready) << one.name;
      ASSERT_NE(answer.get().find("\"state\": \"running\""), std::string::npos) << one.name;
    }
  };
  everyAttack();  // what is made once and kept
  const std::size_t memory = residentBytes();
  const long descriptors = entries("/proc/self/fd");
  const long threads = entries("/proc/self/task");
  everyAttack();
  const std::size_t after = residentBytes();
  EXPECT_EQ(entries("/proc/self/fd"), descriptors);
  EXPECT_EQ(entries("/proc/self/task"), threads);
  EXPECT_LT(after, memory + kMaxGrowth) << "from " << memory;
  EXPECT_GE(made, 2 * 60u) << "so many attacks there are at least";
  std::printf("host memory: %zu KiB, then %zu KiB\n", memory >> 10, after >> 10);
  EXPECT_EQ(neighbour->stop().get().kind, "stopped");
}

// A worker chooses how long it takes to go through its mappings. Nobody else is to notice.
TEST_P(HostUnderAttack, answersOthers_whileALargeWorkerIsLookedAtAndStopped) {
  fs::resize_file(folder_ + "/disk.img", std::uintmax_t{4} << 20);
  Host host(options_);
  vm_.timeout = std::chrono::milliseconds(0);
  auto neighbour = host.start(configOf("neighbour", "start", Jail::kStatic, false), vm_).get();
  auto large = host.start(configOf("many-mappings", "start", GetParam()), vm_).get();
  const auto isReady = [](const auto& future) { return future.wait_for(seconds(0)) == std::future_status::ready; };
  int answers = 0;
  for (auto looking = large->describe(); !isReady(looking); ++answers) {
    auto answer = neighbour->describe();
    ASSERT_EQ(answer.wait_for(seconds(5)), std::future_status::ready);
  }
  EXPECT_GE(answers, 3) << "while the large one was looked at";
  auto looking = large->describe();
  const auto begin = std::chrono::steady_clock::now();
  const auto secondsSince = [begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  auto stopping = large->stop();
  EXPECT_EQ(neighbour->stop().wait_for(seconds(5)), std::future_status::ready);
  const double ofTheNeighbour = secondsSince();
  EXPECT_EQ(stopping.wait_for(seconds(10)), std::future_status::ready);
  std::printf("stopped while a large worker is looked at: its neighbour after %.3f s, the large one after %.3f s\n",
              ofTheNeighbour, secondsSince());
  EXPECT_EQ(stopping.get().kind, "stopped");
}

INSTANTIATE_TEST_SUITE_P(Hostile, HostUnderAttack, ::testing::Values(Jail::kStatic, Jail::kSystem),
                         [](const auto& info) { return jailName(info.param); });

plugin::LaunchPlan planOf(const char* backend, const std::string& json) {
  plugin::RegistryOptions options;
  options.pluginPath = tests::built("lib/hostile-plugins");
  options.prefixDirectory = tests::built(VMMHOST_STAGED_PLUGINS);
  options.probeProgram = tests::built(VMMHOST_STAGED_PROBE);
  plugin::Registry registry(options);
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config::parseJson("test", json, config);
  return registry.load(backend)->plan(config.asReader());
}

std::vector<std::string> bindsOf(const plugin::LaunchPlan& plan) {
  std::vector<std::string> all;
  for (const auto& bind : plan.binds) {
    all.push_back(bind.source + " at " + bind.target);
  }
  return all;
}

std::vector<std::pair<std::uint32_t, std::uint64_t>> limitsOf(const plugin::LaunchPlan& plan) {
  std::vector<std::pair<std::uint32_t, std::uint64_t>> all;
  for (const auto& limit : plan.rlimits) {
    all.emplace_back(limit.resource, limit.value);
  }
  return all;
}

void expectSameJail(const plugin::LaunchPlan& plan, const plugin::LaunchPlan& wanted) {
  EXPECT_EQ(plan.root, wanted.root);
  EXPECT_EQ(plan.proc, wanted.proc);
  EXPECT_EQ(plan.dev, wanted.dev);
  EXPECT_EQ(plan.tmp, wanted.tmp);
  EXPECT_EQ(plan.seccompPolicy, wanted.seccompPolicy);
  EXPECT_EQ(bindsOf(plan), bindsOf(wanted));
  EXPECT_EQ(limitsOf(plan), limitsOf(wanted));
  EXPECT_FALSE(plan.hasOldPolicy);
  EXPECT_FALSE(wanted.hasOldPolicy);
  EXPECT_EQ(plan.epolls > 0, wanted.epolls > 0);
  EXPECT_EQ(plan.maxDescriptors, wanted.maxDescriptors);
  EXPECT_EQ(plan.maxProcesses, wanted.maxProcesses);
  EXPECT_EQ(plan.overheadBytes, wanted.overheadBytes);
}

TEST(HostilePlans, areThoseOfTheRealBackends) {
  const std::string guest = R"({"cpus":{"count":1},"memory":{"size":"64M"},"boot":{"kernel":"k"}})";
  expectSameJail(planOf("hostile", configOf("neighbour", "start", Jail::kStatic)), planOf("kvm", guest));
  expectSameJail(planOf("hostile", configOf("neighbour", "start", Jail::kSystem)), planOf("qemu", guest));
}

}  // namespace
}  // namespace vmmhost::hostile
