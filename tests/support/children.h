// What a program's own processes are, for tests of leaks.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace vmmhost::tests {

// Processes that any thread of this one has started, as the kernel keeps them: a host starts them from its own.
inline std::set<pid_t> children() {
  std::set<pid_t> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream list(task.path() / "children");
    EXPECT_TRUE(list.is_open()) << "this kernel does not tell of children";
    for (pid_t pid = 0; list >> pid;) {
      found.insert(pid);
    }
  }
  return found;
}

}  // namespace vmmhost::tests
