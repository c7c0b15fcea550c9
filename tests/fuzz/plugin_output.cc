// What a plugin says: the answer of its probe as bytes from another process and from the cache, and the launch plan as
// a structure in its memory.
#include <sys/stat.h>

#include <cstring>
#include <string>
#include <vector>

#include "host/plugin/host_api.h"
#include "host/plugin/launch_plan.h"
#include "host/plugin/probe_result.h"
#include "tests/fuzz/fuzz.h"
#include "vmmhost/seccomp.h"

using namespace vmmhost;

namespace {

void probeResult(std::string_view bytes) {
  const auto result = plugin::decodeProbeResult(bytes);
  if (!result) {
    return;
  }
  const std::string encoded = plugin::encodeProbeResult(*result);
  const auto again = plugin::decodeProbeResult(encoded);
  fuzz::require(again.has_value(), "what was accepted is accepted again");
  fuzz::require(plugin::encodeProbeResult(*again) == encoded, "and is then the same");
}

void launchPlan(FuzzedDataProvider& input) {
  std::vector<std::string> texts;
  for (int i = 0; i < 8; ++i) {
    texts.push_back(input.ConsumeRandomLengthString(64));
  }
  const auto text = [&]() -> const char* {
    const auto index = input.ConsumeIntegralInRange<std::size_t>(0, texts.size());
    return index == texts.size() ? nullptr : texts[index].c_str();
  };
  std::vector<const char*> arguments;
  std::vector<vmmhost_bind> binds;
  std::vector<vmmhost_device> devices;
  std::vector<vmmhost_rlimit> limits;
  for (auto count = input.ConsumeIntegralInRange(0, 4); count > 0; --count) {
    arguments.push_back(text());
    vmmhost_bind bind{};
    bind.source = text();
    bind.target = text();
    binds.push_back(bind);
    vmmhost_device device{};
    device.name = text();
    device.path = text();
    device.optional = input.ConsumeBool();
    devices.push_back(device);
    vmmhost_rlimit limit{};
    limit.resource = input.ConsumeIntegral<std::uint32_t>();
    limit.value = input.ConsumeIntegral<std::uint64_t>();
    limits.push_back(limit);
  }
  // A count may exceed what is allowed, but never what is there: that no host could see.
  const auto count = [&](std::size_t there) {
    return static_cast<std::uint32_t>(input.ConsumeIntegralInRange<std::size_t>(0, there));
  };
  vmmhost_launch_plan plan{};
  plan.size = sizeof plan;
  plan.worker = text();
  plan.arguments = arguments.empty() ? nullptr : arguments.data();
  plan.argument_count = arguments.empty() ? input.ConsumeIntegral<std::uint32_t>() : count(arguments.size());
  plan.binds = binds.empty() ? nullptr : binds.data();
  plan.bind_count = binds.empty() ? input.ConsumeIntegral<std::uint32_t>() : count(binds.size());
  plan.devices = devices.empty() ? nullptr : devices.data();
  plan.device_count = devices.empty() ? input.ConsumeIntegral<std::uint32_t>() : count(devices.size());
  plan.rlimits = limits.empty() ? nullptr : limits.data();
  plan.rlimit_count = limits.empty() ? input.ConsumeIntegral<std::uint32_t>() : count(limits.size());
  plan.root = static_cast<decltype(plan.root)>(input.ConsumeIntegral<std::uint8_t>());
  plan.flags = input.ConsumeIntegral<std::uint8_t>();
  plan.seccomp = text();
  plan.max_processes = input.ConsumeIntegral<std::uint32_t>();
  plan.overhead_bytes = input.ConsumeIntegral<std::uint64_t>();
  plan.hello_timeout_ms = input.ConsumeIntegral<std::uint64_t>();
  plan.create_timeout_ms = input.ConsumeIntegral<std::uint64_t>();
  plan.ring_count = input.ConsumeIntegral<std::uint8_t>();
  plan.epoll_count = input.ConsumeIntegral<std::uint8_t>();
  plan.grants = input.ConsumeBool() ? input.ConsumeIntegral<std::uint64_t>() : input.ConsumeIntegral<std::uint16_t>();
  fuzz::accepted([&] {
    const plugin::LaunchPlan copy = plugin::copyLaunchPlan(plan, "/usr/bin");
    const auto& policy = copy.seccompPolicy;
    fuzz::require(policy.isComposed() == (plan.grants != 0), "grants make the policy where there are some");
    fuzz::require(!policy.isComposed() || plan.seccomp == nullptr, "and only where there is no name");
    fuzz::require(copy.root == plugin::LaunchPlan::Root::kEmpty || policy.has(seccomp::grant::kFiles),
                  "who opens nothing has nothing to open");
    seccomp::compile(policy.policy({}));
    fuzz::require(copy.worker.get() >= 0 && !copy.argv.empty(), "an accepted plan has a worker");
    for (const auto& bind : copy.binds) {
      for (const std::string& path : {bind.source, bind.target}) {
        fuzz::require((path + '/').find("/../") == std::string::npos, "no bind leads out of its folder");
      }
    }
    for (const auto& device : copy.devices) {
      fuzz::require(device.path.starts_with("/dev/") && plugin::isBackendName(device.name), "devices are below /dev");
    }
  });
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  if (data[0] % 2 == 0) {
    probeResult(fuzz::text(data + 1, size - 1));
  } else {
    FuzzedDataProvider input(data + 1, size - 1);
    launchPlan(input);
  }
  return 0;
}
