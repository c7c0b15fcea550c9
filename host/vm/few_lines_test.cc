#include "host/vm/few_lines.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::vm {
namespace {

const kj::TimePoint kBegin = kj::origin<kj::TimePoint>();

class FewLinesTest : public ::testing::Test {
 protected:
  FewLinesTest() {
    std::string pattern = ::testing::TempDir() + "vmmhost-lines-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    const Fd folder(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    log_.setFile(std::make_unique<RotatingFile>(folder.get(), "log", 1 << 20));
  }
  ~FewLinesTest() override { std::filesystem::remove_all(path_); }

  // Behind time and severity.
  std::vector<std::string> logged() const {
    std::vector<std::string> lines;
    std::ifstream file(path_ + "/log");
    for (std::string line; std::getline(file, line);) {
      lines.push_back(line.substr(std::min(line.find("vm: "), line.size())));
    }
    return lines;
  }

  std::string path_;
  Log log_{nullptr, false};
  FewLines lines_{log_, Severity::kInfo, "vm"};
};

TEST_F(FewLinesTest, manyInASecond_areCounted_andToldWithTheNext) {
  for (int i = 0; i < 100; ++i) {
    lines_.write(kBegin + i * kj::MILLISECONDS, "was reset");
  }
  EXPECT_EQ(logged(), std::vector<std::string>(FewLines::kInASecond, "vm: was reset"));
  lines_.write(kBegin + 2 * kj::SECONDS, "was reset");
  const std::vector<std::string> all = logged();
  ASSERT_EQ(all.size(), FewLines::kInASecond + 2);
  EXPECT_EQ(all[FewLines::kInASecond], "vm: and so 92 times more");
  EXPECT_EQ(all.back(), "vm: was reset");
}

TEST_F(FewLinesTest, whatWasCounted_isToldAtTheEnd) {
  for (unsigned i = 0; i < FewLines::kInASecond + 1; ++i) {
    lines_.write(kBegin, "was reset");
  }
  lines_.tellOthers();
  EXPECT_EQ(logged().back(), "vm: and so 1 times more");
  const std::size_t before = logged().size();
  lines_.tellOthers();
  EXPECT_EQ(logged().size(), before);
}

}  // namespace
}  // namespace vmmhost::vm
