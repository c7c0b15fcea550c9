// What `vmmhost run` takes, as a VmConfig.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::config {

// The flags that describe a VM. Texts are as they were typed.
struct RunFlags {
  std::optional<std::string> file;  // -f: JSON; "-" is standard input
  std::optional<std::string> name;
  std::optional<std::string> kernel;
  std::optional<std::string> initrd;
  std::optional<std::string> cmdline;
  std::optional<std::string> cpus;
  std::optional<std::string> memory;  // "512M"
  std::vector<std::string> disks;     // "PATH" or "PATH,ro"
};

// Reads the file, then puts the flags over it: single values replace those of the file, disks are added after its own.
// The result is the same whether something was said in the file or by a flag; boot, cpus and memory are always there.
// Not validated beyond its form: see validateVmConfig. Throws Error naming the flag or the member of the file.
void buildVmConfig(const RunFlags& flags, schema::VmConfig::Builder into);

// The whole of a file, "-" being standard input. Throws Error(kNotFound) and the like naming it, kInvalidArgument when
// there is more than `maxBytes` of it (of a regular file before anything is read), and kDeadlineExceeded when nobody
// writes to a FIFO for that long; standard input may take its time.
std::string readTextFile(const std::string& path, std::size_t maxBytes,
                         std::chrono::milliseconds silence = std::chrono::seconds(5));

}  // namespace vmmhost::config
