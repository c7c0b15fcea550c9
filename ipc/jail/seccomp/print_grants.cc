// Test helper: prints the table of grants, as docs/plugins.md has it.
#include <cinttypes>
#include <cstdio>
#include <string>

#include "vmmhost/seccomp.h"

int main() {
  for (const vmmhost::seccomp::Grant& one : vmmhost::seccomp::grants()) {
    std::printf("| `%s` | %#" PRIx64 " | %s |\n", std::string(one.name).c_str(), one.bit,
                std::string(one.allows).c_str());
  }
}
