#include "host/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "host/base/text.h"
#include "vmmhost/fd.h"

namespace vmmhost {
namespace {

class LogTest : public ::testing::Test {
 protected:
  LogTest() {
    std::string pattern = ::testing::TempDir() + "vmmhost-log-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    const Fd folder(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    log_.setFile(std::make_unique<RotatingFile>(folder.get(), "log", 1 << 20));
  }
  ~LogTest() override { std::filesystem::remove_all(path_); }

  // What the file has of one record, behind its time and severity.
  std::string recordOf(const std::string& message) {
    log_.write(Severity::kInfo, "worker", message);
    std::ifstream file(path_ + "/log");
    std::string line;
    for (std::string next; std::getline(file, next);) {
      line = next;
    }
    const std::size_t at = line.find("worker: ");
    return at == std::string::npos ? line : line.substr(at + 8);
  }

  std::string path_;
  Log log_{nullptr, false};
};

// A log is looked at on a terminal: what comes from a worker or a guest says nothing to it.
TEST_F(LogTest, whatATerminalWouldObey_isShown) {
  EXPECT_EQ(recordOf("a\x1b[2Jb\x7f"), "a\\x1b[2Jb\\x7f");
  EXPECT_EQ(recordOf("two\nlines\r"), "two\\nlines\\r");
  EXPECT_EQ(recordOf("\xc2\x9b"
                     "31m and \xc2\x90"),
            "\\x9b31m and \\x90");  // C1 in UTF-8: CSI, DCS
  EXPECT_EQ(recordOf("\x9b"
                     "31m"),
            "\\x9b31m");  // the same to a terminal of 8 bits
  EXPECT_EQ(recordOf("user\xe2\x80\xae"
                     "gpj.exe \xe2\x81\xa6 \xd8\x9c"),
            "user\\u202egpj.exe \\u2066 \\u061c");
  EXPECT_EQ(recordOf("caf\xc3\xa9 \xe6\x97\xa5"), "caf\xc3\xa9 \xe6\x97\xa5");  // text stays text
}

TEST_F(LogTest, record_isCutBetweenCharacters) {
  std::string text;
  while (text.size() < 10000) {
    text += "\xe6\x97\xa5";
  }
  const std::string record = recordOf(text);
  EXPECT_LE(record.size(), 4096u);
  EXPECT_GT(record.size(), 4000u);
  EXPECT_TRUE(record.ends_with("..."));
  EXPECT_TRUE(isUtf8(record));
}

}  // namespace
}  // namespace vmmhost
