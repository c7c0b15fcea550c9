// Attacks by name, and what must come of each.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace vmmhost::hostile {

// What the worker holds when it attacks; -1 where it has none (yet).
struct Loot {
  int rpc = 3;
  int disk = -1;
  int counters = -1;
  int console = -1;
};

// When the attack is made: by a static constructor before main, from the confirm call (greeted, not yet given
// anything), when everything was attached and the guest is to start, or then from a second thread.
enum class Moment { kConstructor, kConfirm, kStart, kThread };

// What is seen from outside.
enum class Fate {
  kKilled,    // SIGSYS
  kErrno,     // the call failed with `errnoValue`
  kHarmless,  // it succeeded, and means nothing: the test looks at the host afterwards
  kRefused,   // the host saw it and sent no configuration
};

enum class When {
  kAlways,
  kConstructor,  // only before the host has looked at it
  kHolding,      // only when it was handed something: kStart and kThread
};

struct Attack {
  const char* name;
  // Returns 0 when the attack succeeded, otherwise an errno value. Made so that it does harm where nothing stops it.
  int (*run)(const Loot& loot);
  Fate fate = Fate::kKilled;
  int errnoValue = 0;
  When when = When::kAlways;
};

// Its name on the command line: "constructor", "confirm", "start", "thread".
const char* momentName(Moment moment);

std::span<const Attack> fileAttacks();
std::span<const Attack> socketAttacks();
std::span<const Attack> processAttacks();
std::span<const Attack> kernelAttacks();
std::span<const Attack> memoryAttacks();
std::span<const Attack> lootAttacks();

// All of them.
std::vector<Attack> allAttacks();
// Null when there is none of this name.
const Attack* findAttack(std::string_view name);  // allocates nothing: a constructor calls it

}  // namespace vmmhost::hostile
