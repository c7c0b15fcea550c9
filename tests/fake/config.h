// What of a configuration the fake backend serves, for the plugin and for the worker; and what faults it asks for.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::fake {

// Throws Error (kUnsupported or kInvalidArgument) that names the field.
void check(schema::VmConfig::Reader config);

struct Orders {
  std::vector<std::string> faults;  // without "fault="; each one parses
  std::chrono::milliseconds helloTimeout{0};
  std::chrono::milliseconds createTimeout{0};
  bool jailOfGrants = false;  // the policy of its worker is composed of grants, in place of one that has a name
};
// The words "fault=...", "fault-deadline=hello:MS|create:MS" and "jail=grants" of a command line. Throws Error for a
// wrong one.
Orders parseOrders(std::string_view commandLine);

}  // namespace vmmhost::fake
