// Runs the built vmmhost command in an environment of its own.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::cli {

// A prefix with the command and a fake supervisor, empty runtime and state folders, gone with it.
class TestCommand {
 public:
  struct Result {
    int exitCode = -1;  // 128 + signal where one ended it
    std::string out;
    std::string err;
  };

  TestCommand();
  ~TestCommand();
  TestCommand(const TestCommand&) = delete;
  TestCommand& operator=(const TestCommand&) = delete;

  const std::string& folder() const { return folder_; }
  std::string writeFile(const std::string& name, const std::string& content) const;
  std::string report() const;  // what the fake supervisor noted
  // Waits until the report holds this; false after 10 s.
  bool awaitReport(const std::string& text) const;

  // With /dev/null, or a pipe with `input` in it, as standard input.
  Result run(const std::vector<std::string>& arguments, const std::string& input = {}) const;

  // A command that is under way, on pipes or on a terminal of its own.
  class Running {
   public:
    Running() = default;
    ~Running();
    Running(Running&& other) noexcept
        : pid(std::exchange(other.pid, 0)),
          in(std::move(other.in)),
          out(std::move(other.out)),
          err(std::move(other.err)),
          collected(std::move(other.collected)) {}
    // Reads until the output holds `text`; false at its end, or after 10 s.
    bool awaitOutput(const std::string& text);
    void type(const std::string& keys);
    void signal(int number) const;
    void closeOutput() { out.reset(); }
    // Reads everything and waits for the end; kills it after 20 s.
    Result finish();
    const std::string& output() const { return collected; }

    pid_t pid = 0;
    Fd in, out, err;
    std::string collected;
  };
  Running start(const std::vector<std::string>& arguments, bool terminal = false) const;

 private:
  std::string folder_;
};

}  // namespace vmmhost::cli
