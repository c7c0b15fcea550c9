// Medians and machine description for benchmarks.
#pragma once

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace vmmhost::bench {

inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) {
    return 0;
  }
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}
inline double median(const std::vector<double>& values) {
  return quantile(values, 0.5);
}

inline void printMachine() {
  std::string model = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  utsname system = {};
  ::uname(&system);
  std::printf("machine: %ld x %s, Linux %s\n", ::sysconf(_SC_NPROCESSORS_ONLN), model.c_str(), system.release);
}

}  // namespace vmmhost::bench
