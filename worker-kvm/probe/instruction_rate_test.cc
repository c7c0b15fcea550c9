#include "worker-kvm/probe/instruction_rate.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <iostream>

namespace vmmhost::kvm::probe {
namespace {

TEST(InstructionRate, isMeasuredAndPlausible) {
  const int fd = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    std::cerr << "\n*** /dev/kvm cannot be opened: the probe is not tested ***\n" << std::endl;
    GTEST_SKIP();
  }
  const Device device{Fd(fd)};
  const std::uint64_t rate = measureInstructionRate(device);
  EXPECT_GT(rate, 10'000U);           // slower than any emulator seen
  EXPECT_LT(rate, 100'000'000'000U);  // faster than any processor
  RecordProperty("instructionsPerSecond", static_cast<int>(rate));
}

}  // namespace
}  // namespace vmmhost::kvm::probe
