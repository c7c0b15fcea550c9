// Runs the vmmhost command with the hostile backend, as the caller or as an ordinary user.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/hostile/attack.h"
#include "tests/hostile/traps.h"

namespace vmmhost::hostile {

// Without groups: the caller, where no control groups can be made; takes root.
enum class User { kCaller, kOrdinary, kWithoutGroups };

const char* userSuffix(User user);  // of the names of tests: "asCaller", "asOrdinaryUser", "withoutGroups"

struct Result {
  int exitCode = -1;
  std::string output;  // both streams, at most 1 MiB
};

// The surroundings of one run: a folder of its own with a disk and runtime and state folders, and traps on the host;
// gone with the object.
class Surroundings {
 public:
  explicit Surroundings(User user);
  ~Surroundings();
  Surroundings(const Surroundings&) = delete;
  Surroundings& operator=(const Surroundings&) = delete;

  // `vmmhost run` with this attack. `meanwhile` is called when the command was started and has not been waited for.
  Result run(const Attack& attack, Moment moment, Jail jail, const std::function<void()>& meanwhile = {});
  // `vmmhost run` of a plan of which this part is forged.
  Result runForged(const std::string& part);
  // `vmmhost ARGUMENTS...`
  Result command(const std::vector<std::string>& arguments, const std::function<void()>& meanwhile = {}) const;

  // What of the host's view has changed since the beginning, or was left behind; empty: nothing.
  std::string damage() const;
  const Traps& traps() const { return traps_; }
  const std::string& disk() const { return disk_; }

 protected:
  void configure(const std::string& attack, const std::string& moment, Jail jail, const std::string& forged) const;

 private:
  [[noreturn]] void execute(const std::vector<std::string>& arguments, int output) const;

  User user_;
  std::string command_;
  std::string plugins_;
  std::string folder_;
  std::string token_;
  std::string disk_;
  Traps traps_;
};

// A VM beside the one that attacks, of the same user; ends with the object.
class Neighbour : private Surroundings {
 public:
  // `attack`: one that stays.
  Neighbour(User user, const char* attack, Jail jail);
  ~Neighbour();

  bool answers() const;      // that it is running
  std::string stop() const;  // what is wrong with its end; empty: nothing
};

// Why the command cannot be run so here (a caller who is not root; for an ordinary user that it lies in a folder that
// is closed to others, and this program was not started by ctest, which sees to that); empty: it can.
std::string whyNot(User user);
// Whether VMs of this user have control groups here.
bool hasControlGroups(User user);

}  // namespace vmmhost::hostile
