#include "tests/fake/config.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "vmmhost/config_fields.h"

namespace vmmhost::fake {
namespace {

// A field that is added to vm.capnp is in neither list until somebody has thought of it.
TEST(FakeConfig, everyField_isPlayedOrRefusedByName) {
  using Config = schema::VmConfig::Builder;
  ServedFields served;
  served.names = {
      "name",
      "boot",
      "boot.kernel",
      "boot.kernel.path",
      "boot.kernel.resource",
      "boot.initrd",
      "boot.initrd.path",
      "boot.initrd.resource",
      "boot.cmdline",
      "boot.firmware",  // without anything in it
      "cpus",
      "memory",
      "memory.size",
      "memory.shared",  // which nobody maps
      "consoles",
      "vsock",
      "vsock.enabled",  // that is: not there
      "vsock.cid",      // which no guest that is played sees
      "rng.enabled",    // that is: not there
      "balloon",
      "balloon.targetSize",
      "balloon.deflateOnOom",       // there is no memory to run out of
      "balloon.freePageReporting",  // nor to report
      "platform",
  };
  served.values = {
      {"cpus.max", [](Config config) { config.initCpus().setMax(2); }},
      {"cpus.coresPerSocket", [](Config config) { config.initCpus().setCoresPerSocket(2); }},
      {"memory.size", [](Config config) { config.initMemory().setSize(64 << 20); }},
  };
  EXPECT_EQ(findUnaccountedFields(
                served, [](Config config) { config.initBoot().initKernel().setPath("/kernel"); }, check),
            std::vector<std::string>{});
}

}  // namespace
}  // namespace vmmhost::fake
