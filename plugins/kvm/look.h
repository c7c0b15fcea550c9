// Looks at this machine's KVM: can it be used, and is there hardware behind it?
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace vmmhost::plugins::kvm {

struct Findings {
  bool usable = false;
  bool hardware = false;  // measured, so false when nothing was measured
  std::uint64_t instructionsPerSecond = 0;
  std::string summary;
  std::string hint;  // what mends it, when not usable
};

// `device` is the path of /dev/kvm. Measuring runs a tiny guest for some 20 to 100 ms. Never throws for what it finds.
Findings look(const std::string& device, bool measure);

// The parts of it that need no machine.
std::string summarize(std::uint64_t instructionsPerSecond);
// What to do when there is no /dev/kvm, from the text of /proc/cpuinfo.
std::string hintForMissingDevice(std::string_view cpuinfo);
// What to do when it may not be opened: `group` owns it, with these mode bits.
std::string hintForPermission(const std::string& device, const std::string& group, mode_t mode);

}  // namespace vmmhost::plugins::kvm
