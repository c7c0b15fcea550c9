// From a VM's name to its supervisor.
#pragma once

#include <capnp/message.h>
#include <kj/async-io.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "host/client/control_client.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

runtime::Directories openDirectories();

// A client of the supervisor of a living VM, its hello checked. Throws kNotFound for a name that nobody has,
// kFailedPrecondition for a VM that has ended.
std::unique_ptr<client::ControlClient> connectTo(kj::AsyncIoContext& io, const runtime::Directories& directories,
                                                 const std::string& name);

// No VM of this name lives: it has ended, or removed itself, or there never was one.
bool hasEnded(const runtime::Directories& directories, const std::string& name);

// What a supervisor left that died; empty: its name is not known.
void clearAway(const std::string& name);

// What an ended VM left: its last VmInfo, or no more than an outcome where a dead supervisor was cleared away.
class EndedVm {
 public:
  explicit EndedVm(const runtime::Entry& entry);
  schema::VmInfo::Reader info() const { return info_.asReader(); }
  bool known() const { return known_; }  // false: what is there cannot be read

 private:
  capnp::MallocMessageBuilder message_;
  schema::VmInfo::Builder info_;
  bool known_ = false;
};

// A whole number of 32 bits. Throws Error naming the subject and what was expected of it.
std::uint32_t parseNumber(const char* subject, const char* expected, const std::string& text);

// The number of a console, 0 when nothing is said. Throws Error naming the flag.
std::uint32_t parseConsole(const char* flag, const std::optional<std::string>& text);

// "10" or "0.5" -> milliseconds, at least 1. Throws Error naming the flag.
std::uint64_t parseSeconds(const char* flag, const std::string& text);

}  // namespace vmmhost::cli
