// A real process in a jail that lacks exactly what a test leaves out of it.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <vector>

#include "vmmhost/confinement.h"
#include "vmmhost/fd.h"

namespace vmmhost::confinement {

// Parts that can be left out: "user", "mnt", "pid", "net", "ipc", "uts", "cgroup" (namespaces), "read-only",
// "seccomp", "no-new-privs", "bounding", "inheritable", "groups".
struct Jail {
  std::set<std::string> without;
  std::vector<std::string> arguments;  // of confinement-target
  bool bindUsr = false;
  bool bindIsWritable = false;
  int executable = -1;  // confinement-target, already open; otherwise it is opened by its path
};

class TestProcess {
 public:
  explicit TestProcess(const Jail& jail);
  ~TestProcess();
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  // Started and waiting; otherwise the test cannot go on.
  bool isReady() const { return isReady_; }
  pid_t pid() const { return pid_; }
  // What holds of it when nothing was left out.
  Expectation expectation() const;
  void kill();

 private:
  pid_t pid_ = -1;
  bool isReady_ = false;
  Fd socket_;
  Fd executable_;
};

}  // namespace vmmhost::confinement
