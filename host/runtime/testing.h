// What the tests of this folder share.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "host/runtime/directories.h"

namespace vmmhost::runtime::testing {

namespace fs = std::filesystem;

class RuntimeTest : public ::testing::Test {
 protected:
  RuntimeTest() {
    std::string pattern = (fs::temp_directory_path() / "vmmhost-test-XXXXXX").string();
    root = ::mkdtemp(pattern.data());
    directories = Directories::open({(root / "run").string(), (root / "state").string()});
  }
  ~RuntimeTest() override {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  }

  static std::string read(const fs::path& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static void write(const fs::path& path, const std::string& content) { std::ofstream(path) << content; }
  fs::path run(const std::string& name) const { return root / "run" / name; }
  fs::path state(const std::string& name) const { return root / "state" / name; }

  template <typename Call>
  static Error errorOf(Call&& call) {
    try {
      call();
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return Error(ErrorCode::kUnknown, "");
  }

  fs::path root;
  Directories directories;
};

// A process that does something, says that it is ready, and then waits for its end.
class Process {
 public:
  // `work` runs in the child; what it returns is held until the child is killed.
  template <typename Work>
  explicit Process(Work work) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      try {
        const auto held = work();
        (void)!::write(ends[1], "x", 1);
        while (true) {
          ::pause();
        }
      } catch (const Error& error) {
        (void)!::write(ends[1], error.code() == ErrorCode::kAlreadyExists ? "e" : "?", 1);
      }
      ::_exit(0);
    }
    ::close(ends[1]);
    EXPECT_EQ(::read(ends[0], &answer_, 1), 1);
    ::close(ends[0]);
  }
  ~Process() { end(SIGKILL); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  char answer() const { return answer_; }  // 'x': ready, 'e': kAlreadyExists, '?': another Error
  pid_t pid() const { return pid_; }
  void end(int signal) {
    if (pid_ > 0) {
      ::kill(pid_, signal);
      ::waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
  }

 private:
  pid_t pid_ = -1;
  char answer_ = 0;
};

}  // namespace vmmhost::runtime::testing
