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

// A processor that runs `rate` instructions a second, on which another program runs for 30 ms now and then.
class BusyProcessor {
 public:
  explicit BusyProcessor(double rate) : rate_(rate) {}

  std::chrono::nanoseconds operator()(std::uint64_t turns) {
    const std::chrono::duration<double> alone(static_cast<double>(turns) * 2 / rate_);
    const bool disturbed = runs_++ % 3 != 1;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(alone) + std::chrono::milliseconds(disturbed ? 30 : 0);
  }

 private:
  double rate_;
  int runs_ = 0;
};

TEST(InstructionRate, ofABusyProcessor_isThatOfItsQuietMoments) {
  for (const double rate : {1.3e6, 3e6, 150e6, 2.5e9}) {
    const double measured = static_cast<double>(fastestRate(BusyProcessor(rate)));
    EXPECT_NEAR(measured, rate, rate / 100);
  }
}

}  // namespace
}  // namespace vmmhost::kvm::probe
