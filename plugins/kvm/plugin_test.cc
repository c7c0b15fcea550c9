// The plugin as the host loads it, through its C interface.
#include "vmmhost/plugin.h"

#include <capnp/message.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <functional>
#include <set>
#include <string>

#include "plugins/kvm/look.h"
#include "tests/support/built.h"
#include "vmmhost/schema/vm.capnp.h"

struct vmmhost_error {
  std::uint32_t code = 0;
  std::string message;
  std::string hint;
  std::string field;
};

namespace vmmhost::plugins::kvm {
namespace {

void setError(vmmhost_error* error, std::uint32_t code, const char* message, const char* hint, int) {
  *error = {code, message, hint, {}};
}

void setField(vmmhost_error* error, const char* field) {
  error->field = field;
}

class KvmPluginTest : public testing::Test {
 protected:
  void SetUp() override {
    // Never closed, as the host never does.
    void* library = ::dlopen(tests::built("lib/vmmhost-backend-kvm.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << ::dlerror();
    const auto entry = reinterpret_cast<vmmhost_plugin_entry_fn>(::dlsym(library, VMMHOST_PLUGIN_ENTRY_SYMBOL));
    ASSERT_NE(entry, nullptr);
    entry_ = entry;
    plugin_ = entry(&host_, &error_);
    ASSERT_NE(plugin_, nullptr) << error_.message;
  }

  int call(decltype(vmmhost_plugin::validate) function, const std::function<void(schema::VmConfig::Builder)>& change) {
    return withConfig(change, [&](const vmmhost_config& config) { return function(&host_, &config, &error_); });
  }
  template <typename Use>
  int withConfig(const std::function<void(schema::VmConfig::Builder)>& change, Use use) {
    capnp::MallocMessageBuilder message(1024);
    auto builder = message.initRoot<schema::VmConfig>();
    builder.setName("test");
    builder.initBoot().initKernel().setPath("/kernel");
    change(builder);
    const auto segments = message.getSegmentsForOutput();
    EXPECT_EQ(segments.size(), 1U);
    return use(vmmhost_config{sizeof(vmmhost_config), 0, segments[0].begin(), segments[0].size(), nullptr});
  }

  vmmhost_error error_;
  vmmhost_host_api host_{sizeof(vmmhost_host_api), VMMHOST_PLUGIN_ABI, "test", setError, nullptr, nullptr, setField};
  vmmhost_plugin_entry_fn entry_ = nullptr;
  const vmmhost_plugin* plugin_ = nullptr;
};

TEST_F(KvmPluginTest, probe_tellsWhatThisMachineHas) {
  const vmmhost_probe_request request{sizeof(vmmhost_probe_request), 1};
  vmmhost_probe_result result{};
  result.size = sizeof result;
  ASSERT_EQ(plugin_->probe(&host_, &request, &result, &error_), 0) << error_.message;
  const bool openable = ::access("/dev/kvm", R_OK | W_OK) == 0;
  EXPECT_EQ(result.usable, openable ? 1U : 0U) << result.summary;
  EXPECT_NE(std::string(result.summary), "");
  if (openable) {
    EXPECT_GT(result.instructions_per_second, 0U);
    EXPECT_EQ(result.acceleration == VMMHOST_ACCELERATION_HARDWARE, result.instructions_per_second >= 50'000'000);
    EXPECT_EQ(std::string(result.hint), "");
  } else {
    EXPECT_NE(std::string(result.hint), "");
  }
  std::set<std::string> capabilities(result.capabilities, result.capabilities + result.capability_count);
  std::set<std::string> expected{"boot-pvh", "initrd", "smp",          "console-serial", "pause",
                                 "reset",    "disk",   "triple-fault", "counters",       "power-button",
                                 "nic",      "vsock",  "balloon",      "console-virtio"};
  if (result.acceleration == VMMHOST_ACCELERATION_HARDWARE) {
    expected.insert("boot-linux");
  }
  EXPECT_EQ(capabilities, expected);
}

TEST_F(KvmPluginTest, probeWithoutMeasuring_isUsableAndClaimsNoHardware) {
  const vmmhost_probe_request request{sizeof(vmmhost_probe_request), 0};
  vmmhost_probe_result result{};
  result.size = sizeof result;
  ASSERT_EQ(plugin_->probe(&host_, &request, &result, &error_), 0) << error_.message;
  EXPECT_EQ(result.instructions_per_second, 0U);
  EXPECT_NE(result.acceleration, static_cast<std::uint32_t>(VMMHOST_ACCELERATION_HARDWARE));
  EXPECT_EQ(result.usable, ::access("/dev/kvm", R_OK | W_OK) == 0 ? 1U : 0U) << result.summary;
}

TEST_F(KvmPluginTest, validate_namesTheFieldThatIsNotServed) {
  EXPECT_EQ(call(plugin_->validate, [](auto) {}), 0) << error_.message;
  EXPECT_EQ(call(plugin_->validate, [](auto config) { config.initCpus().setCount(65); }), -1);
  EXPECT_EQ(error_.message.rfind("cpus.count: ", 0), 0U) << error_.message;
  EXPECT_EQ(call(plugin_->validate, [](auto config) { config.initShares(1); }), -1);
  EXPECT_EQ(error_.code, static_cast<std::uint32_t>(VMMHOST_ERROR_UNSUPPORTED));
  EXPECT_NE(error_.message.find("shares[0]"), std::string::npos);
  EXPECT_NE(error_.hint, "");
  EXPECT_EQ(error_.field, "shares[0]");
  error_ = {};
  host_.size = offsetof(vmmhost_host_api, error_field);  // a host before errors had a field
  EXPECT_EQ(call(plugin_->validate, [](auto config) { config.initShares(1); }), -1);
  EXPECT_NE(error_.message.find("shares[0]"), std::string::npos);
  EXPECT_EQ(error_.field, "");
}

TEST_F(KvmPluginTest, malformedConfiguration_isAnErrorAndNoMore) {
  const std::array<std::uint64_t, 2> words = {0xffffffffffffffff, 0x4141414141414141};
  for (std::uint64_t count = 0; count <= words.size(); ++count) {
    error_ = {};
    const vmmhost_config config{sizeof(vmmhost_config), 0, words.data(), count, nullptr};
    EXPECT_EQ(plugin_->validate(&host_, &config, &error_), -1);
    EXPECT_NE(error_.message, "");
  }
  const vmmhost_config huge{sizeof(vmmhost_config), 0, words.data(), UINT64_MAX, nullptr};
  EXPECT_EQ(plugin_->validate(&host_, &huge, &error_), -1);
  const vmmhost_config tiny{8, 0, words.data(), 2, nullptr};
  EXPECT_EQ(plugin_->validate(&host_, &tiny, &error_), -1);
}

TEST_F(KvmPluginTest, plan_isAnEmptyRootWithOneDevice) {
  vmmhost_launch_plan plan{};
  plan.size = sizeof plan;
  ASSERT_EQ(withConfig([](auto) {},
                       [&](const vmmhost_config& config) { return plugin_->plan(&host_, &config, &plan, &error_); }),
            0)
      << error_.message;
#ifndef VMMHOST_SANITIZED
  EXPECT_EQ(plan.root, static_cast<std::uint32_t>(VMMHOST_ROOT_EMPTY));
  EXPECT_EQ(std::string(plan.seccomp), "worker-static");
  EXPECT_GE(plan.hello_timeout_ms, 20000U);  // many may start at once
  EXPECT_EQ(plan.flags, 0U);
#endif
  ASSERT_EQ(plan.device_count, 1U);
  EXPECT_EQ(std::string(plan.devices[0].name), "kvm");
  EXPECT_EQ(std::string(plan.devices[0].path), "/dev/kvm");
  EXPECT_EQ(plan.bind_count, 0U);
  const std::string worker = plan.worker;
  EXPECT_TRUE(worker.starts_with("../")) << worker;
  EXPECT_TRUE(worker.ends_with("/vmmhost-worker-kvm")) << worker;
}

TEST_F(KvmPluginTest, disksHaveAQueueForEachProcessor_whileThereAreRings) {
  const auto ringsFor = [&](std::uint32_t cpus, std::uint32_t disks) {
    vmmhost_launch_plan plan{};
    plan.size = sizeof plan;
    EXPECT_EQ(withConfig(
                  [&](auto config) {
                    config.initCpus().setCount(cpus);
                    auto list = config.initDisks(disks);
                    for (auto disk : list) {
                      disk.initFile().setPath("/disk");
                    }
                  },
                  [&](const vmmhost_config& config) { return plugin_->plan(&host_, &config, &plan, &error_); }),
              0)
        << error_.message;
    return plan.ring_count;
  };
  EXPECT_EQ(ringsFor(1, 2), 2U);
  EXPECT_EQ(ringsFor(2, 2), 4U);
  EXPECT_EQ(ringsFor(16, 2), 8U);
  EXPECT_EQ(ringsFor(16, 16), 32U);
}

TEST_F(KvmPluginTest, epollInstancesAndDescriptors_areThoseThatTheConfigurationTakes) {
  const auto planFor = [&](const std::function<void(schema::VmConfig::Builder)>& change) {
    vmmhost_launch_plan plan{};
    plan.size = sizeof plan;
    EXPECT_EQ(withConfig(change,
                         [&](const vmmhost_config& config) { return plugin_->plan(&host_, &config, &plan, &error_); }),
              0)
        << error_.message;
    return plan;
  };
  const vmmhost_launch_plan least = planFor([](auto) {});
  EXPECT_EQ(least.epoll_count, 3U);
  EXPECT_EQ(least.max_descriptors, 256U);
  const vmmhost_launch_plan wide = planFor([](schema::VmConfig::Builder config) {
    config.initCpus().setCount(8);
    for (auto disk : config.initDisks(8)) {
      disk.initFile().setPath("/disk");
    }
    for (auto nic : config.initNics(8)) {
      nic.initAttachment().setTap("tap0");
    }
  });
  EXPECT_EQ(wide.epoll_count, 3U + 8 * 5 + 8 * 8);
  EXPECT_GT(wide.max_descriptors, 512U);
  EXPECT_LE(wide.max_descriptors, 4096U);
}

// Its worker would end at once.
TEST_F(KvmPluginTest, hostThatStartsNoWorkerWithEpollInstances_isRefused) {
  vmmhost_launch_plan plan{};
  plan.size = offsetof(vmmhost_launch_plan, epoll_count);  // as of 1.1
  EXPECT_EQ(withConfig([](auto) {},
                       [&](const vmmhost_config& config) { return plugin_->plan(&host_, &config, &plan, &error_); }),
            -1);
  EXPECT_EQ(error_.code, static_cast<std::uint32_t>(VMMHOST_ERROR_UNSUPPORTED));
  EXPECT_NE(error_.message.find("version 1.2 of the plugin interface"), std::string::npos) << error_.message;
  EXPECT_EQ(error_.hint, "install a host of this version");
}

TEST_F(KvmPluginTest, foreignHost_isRefused) {
  host_.abi = (VMMHOST_PLUGIN_ABI_MAJOR + 1) << 16;
  EXPECT_EQ(entry_(&host_, &error_), nullptr);
  EXPECT_EQ(error_.code, static_cast<std::uint32_t>(VMMHOST_ERROR_UNSUPPORTED));
}

TEST(Look, missingDevice_isToldWithWhatMendsIt) {
  const Findings findings = look("/nowhere/kvm", true);
  EXPECT_FALSE(findings.usable);
  EXPECT_EQ(findings.summary, "/nowhere/kvm is missing");
  EXPECT_NE(findings.hint, "");
}

TEST(Look, deviceThatIsNotKvm_isToldSo) {
  const Findings findings = look("/dev/null", true);
  EXPECT_FALSE(findings.usable);
  EXPECT_NE(findings.summary.find("no KVM device"), std::string::npos) << findings.summary;
}

TEST(Look, hints_fitWhatIsFound) {
  EXPECT_EQ(hintForMissingDevice("processor: 0\nflags\t\t: fpu vmx sse\n"), "sudo modprobe kvm_intel");
  EXPECT_EQ(hintForMissingDevice("flags\t\t: fpu sse svm\n"), "sudo modprobe kvm_amd");
  EXPECT_NE(hintForMissingDevice("flags\t\t: fpu\n").find("firmware"), std::string::npos);
  EXPECT_EQ(hintForPermission("/dev/kvm", "kvm", 0660), "sudo usermod -aG kvm $USER, then log in again");
  EXPECT_NE(hintForPermission("/dev/kvm", "root", 0600).find("chgrp kvm /dev/kvm"), std::string::npos);
}

TEST(Look, summaries_tellEmulationFromHardware) {
  EXPECT_EQ(summarize(1'300'000), "present, but emulating (1.3 MIPS)");
  EXPECT_EQ(summarize(2'500'000'000), "KVM with hardware virtualization (2500 MIPS)");
  EXPECT_NE(summarize(0).find("not measured"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::plugins::kvm
