// A log in a file of its own, for tests that read it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "host/base/log.h"
#include "vmmhost/fd.h"

namespace vmmhost::jailed {

class TestLog {
 public:
  TestLog() {
    std::string pattern = ::testing::TempDir() + "vmmhost-jailed-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    const Fd folder(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    log_.setFile(std::make_unique<RotatingFile>(folder.get(), "log", 8 << 20));
  }
  ~TestLog() { std::filesystem::remove_all(path_); }
  TestLog(const TestLog&) = delete;
  TestLog& operator=(const TestLog&) = delete;

  Log& log() { return log_; }
  // Behind their time.
  std::vector<std::string> lines() const {
    std::vector<std::string> all;
    std::ifstream file(path_ + "/log");
    for (std::string line; std::getline(file, line);) {
      all.push_back(line.substr(std::min(line.find(' ') + 1, line.size())));
    }
    return all;
  }

 private:
  std::string path_;
  Log log_{nullptr, false};
};

}  // namespace vmmhost::jailed
