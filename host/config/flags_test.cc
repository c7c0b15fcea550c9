#include "host/config/flags.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

#include "host/config/json.h"
#include "vmmhost/error.h"

namespace vmmhost::config {
namespace {

class TemporaryFile {
 public:
  explicit TemporaryFile(std::string_view content) {
    std::string name = ::testing::TempDir() + "vmmhost-flags-XXXXXX";
    ::close(::mkstemp(name.data()));
    path_ = name;
    std::ofstream(path_) << content;
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string build(const RunFlags& flags) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  buildVmConfig(flags, config);
  return writeJson(config.asReader(), {.pretty = false});
}

Error refusal(const RunFlags& flags) {
  try {
    build(flags);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "was not refused";
  return Error(ErrorCode::kUnknown, "");
}

TEST(RunFlags, nothing_givesTheParts) {
  EXPECT_EQ(build({}), R"({"boot":{},"cpus":{},"memory":{}})");
}

TEST(RunFlags, flagsAndFile_giveTheSame) {
  const TemporaryFile file(R"({"name":"v","boot":{"kernel":"k","initrd":{"path":"i"},"cmdline":"c d"},
    "cpus":{"count":2},"memory":{"size":"256M"},"disks":[{"file":"a,b.img","readOnly":true},{"file":"b"}]})");
  RunFlags flags;
  flags.name = "v";
  flags.kernel = "k";
  flags.initrd = "i";
  flags.cmdline = "c d";
  flags.cpus = "2";
  flags.memory = "256M";
  flags.disks = {"a,b.img,ro", "b"};
  RunFlags fromFile;
  fromFile.file = file.path();
  EXPECT_EQ(build(flags), build(fromFile));
  EXPECT_EQ(build(flags), R"({"name":"v","boot":{"kernel":"k","initrd":"i","cmdline":"c d"},"cpus":{"count":2},)"
                          R"("memory":{"size":268435456},"disks":[{"file":"a,b.img","readOnly":true},{"file":"b"}]})");
}

TEST(RunFlags, flags_replaceValuesAndAddDisks) {
  const TemporaryFile file(R"({"name":"v","boot":{"kernel":"k","cmdline":"c"},"cpus":{"count":2,"max":4},
    "disks":[{"file":"a","id":"x"}],"rng":{}})");
  RunFlags flags;
  flags.file = file.path();
  flags.kernel = "other";
  flags.cpus = "3";
  flags.disks = {"b,ro"};
  EXPECT_EQ(build(flags), R"({"name":"v","boot":{"kernel":"other","cmdline":"c"},"cpus":{"count":3,"max":4},)"
                          R"("memory":{},"disks":[{"file":"a","id":"x"},{"file":"b","readOnly":true}],"rng":{}})");
}

TEST(RunFlags, emptyText_replacesToo) {
  const TemporaryFile file(R"({"boot":{"kernel":"k","cmdline":"c"}})");
  RunFlags flags;
  flags.file = file.path();
  flags.cmdline = "";
  EXPECT_EQ(build(flags), R"({"boot":{"kernel":"k","cmdline":""},"cpus":{},"memory":{}})");
}

TEST(RunFlags, wrongValues_nameTheirFlag) {
  RunFlags cpus;
  cpus.cpus = "two";
  EXPECT_EQ(refusal(cpus).message(), "--cpus: expected a whole number, found \"two\"");
  cpus.cpus = "4294967296";
  EXPECT_EQ(refusal(cpus).message(), "--cpus: \"4294967296\" is out of range");
  cpus.cpus = "-1";
  EXPECT_EQ(refusal(cpus).message(), "--cpus: expected a whole number, found \"-1\"");
  RunFlags memory;
  memory.memory = "12Q";
  EXPECT_EQ(refusal(memory).message(), "--memory: expected a size, found \"12Q\"");
  RunFlags disk;
  disk.disks = {"a.img,rw"};
  EXPECT_EQ(refusal(disk).message(), "--disk: \"rw\" is no option of a disk");
  disk.disks = {",ro"};
  EXPECT_EQ(refusal(disk).message(), "--disk: a path is missing in \",ro\"");
  RunFlags kernel;
  kernel.kernel = "a\xff";
  EXPECT_EQ(refusal(kernel).message(), "--kernel: \"a\\xff\" is not UTF-8");
}

TEST(RunFlags, missingFile_isNotFoundByName) {
  RunFlags flags;
  flags.file = "/nonexistent/vm.json";
  const Error error = refusal(flags);
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_NE(error.message().find("/nonexistent/vm.json"), std::string::npos) << error.message();
}

TEST(RunFlags, wrongFile_isNamed) {
  const TemporaryFile file(R"({"cpu":1})");
  RunFlags flags;
  flags.file = file.path();
  EXPECT_EQ(refusal(flags).message(), file.path() + ": cpu: there is no such member");
  flags.file = ::testing::TempDir();
  EXPECT_NE(refusal(flags).message().find("is a folder"), std::string::npos);
}

TEST(RunFlags, endlessFile_isCutOff) {
  RunFlags flags;
  flags.file = "/dev/zero";
  EXPECT_EQ(refusal(flags).message(), "/dev/zero has more than 4194304 bytes; expected at most 4194304");
}

TEST(RunFlags, longFile_isRefusedByItsSizeUnread) {
  const TemporaryFile file("");
  ASSERT_EQ(::truncate(file.path().c_str(), std::int64_t{1} << 40), 0);
  RunFlags flags;
  flags.file = file.path();
  EXPECT_EQ(refusal(flags).message(), file.path() + " has 1099511627776 bytes; expected at most 4194304");
}

TEST(RunFlags, emptyNamesAndPaths_areMissing) {
  RunFlags name;
  name.name = "";
  EXPECT_EQ(refusal(name).message(), "--name: a name is missing");
  RunFlags kernel;
  kernel.kernel = "";
  EXPECT_EQ(refusal(kernel).message(), "--kernel: a path is missing");
  RunFlags initrd;
  initrd.initrd = "";
  EXPECT_EQ(refusal(initrd).message(), "--initrd: a path is missing");
  RunFlags file;
  file.file = "";
  EXPECT_EQ(refusal(file).message(), "--file: a path is missing");
}

TEST(ReadTextFile, fifo_isReadWhenSomebodyWritesItAndGivenUpOtherwise) {
  const std::string path = ::testing::TempDir() + "vmmhost-fifo-" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  try {
    readTextFile(path, 100, std::chrono::milliseconds(20));
    ADD_FAILURE() << "was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
    EXPECT_NE(error.message().find(path + ": nobody wrote"), std::string::npos) << error.message();
  }
  std::thread writer([&] { std::ofstream(path) << "late"; });
  EXPECT_EQ(readTextFile(path, 100, std::chrono::seconds(60)), "late");
  writer.join();
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace vmmhost::config
