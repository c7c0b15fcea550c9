// What a test's worker is not to do, whatever the test is about: it would be at fault.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace vmmhost::tests {

// The log of a host tells how its VMs ended; the older part of it is beside it.
inline void expectNoForbiddenCall(const std::string& logFile) {
  for (const std::string& path : {logFile + ".1", logFile}) {
    std::ifstream log(path);
    for (std::string line; std::getline(log, line);) {
      EXPECT_EQ(line.find("ended by SIGSYS"), std::string::npos)
          << "a worker made a call that its jail forbids: " << line;
    }
  }
}

}  // namespace vmmhost::tests
