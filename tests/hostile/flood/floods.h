// Ways of costing a peer memory, time or its answers, by name.
#pragma once

#include <span>
#include <string_view>

#include "tests/hostile/flood/frames.h"
#include "tests/hostile/flood/wire.h"

namespace vmmhost::hostile {

// What becomes of the connection.
enum class End {
  kCut,   // the attacked side closes it
  kKept,  // it bears it: what it does not read costs it nothing
};

struct Flood {
  const char* name;
  void (*run)(Wire& wire, const Door& door);
  End onControl = End::kCut;
  End fromWorker = End::kCut;
  unsigned connections = 8;  // at once, from the attacking client
};

std::span<const Flood> answerFloods();          // valid messages whose answers or objects pile up
std::span<const Flood> nonsenseFloods();        // valid messages that mean nothing
std::span<const Flood> malformedFloods();       // bytes that are no message
std::span<const Flood> controlFloods();         // only a client can do these
const Flood* findFlood(std::string_view name);  // null: there is none

}  // namespace vmmhost::hostile
