// Runs the vmmhost command with the hostile backend, as the caller or as an ordinary user.
#pragma once

#include <string>

#include "tests/hostile/attack.h"

namespace vmmhost::hostile {

enum class User { kCaller, kOrdinary };

// The surroundings of one run: a folder of its own with a disk and runtime and state folders; gone with the object.
class Surroundings {
 public:
  explicit Surroundings(User user);
  ~Surroundings();
  Surroundings(const Surroundings&) = delete;
  Surroundings& operator=(const Surroundings&) = delete;

  struct Result {
    int exitCode = -1;
    std::string output;  // both streams, at most 1 MiB
  };
  Result run(const Attack& attack, Moment moment);

  // What of the host's view has changed since the beginning, or was left behind; empty: nothing.
  std::string damage(const Attack& attack, Moment moment) const;

 private:
  [[noreturn]] void execute(const std::string& configuration, int output) const;

  User user_;
  std::string folder_;
  std::string disk_;
};

// Why an ordinary user cannot run the command here (it lies in a folder that is closed to others); empty: it can.
std::string whyNotOrdinary();

}  // namespace vmmhost::hostile
