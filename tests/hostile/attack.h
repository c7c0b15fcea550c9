// Attacks by name, and what must come of each in either jail.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace vmmhost::hostile {

// The two jails that workers live in: that of worker-kvm (a static executable in an empty root, policy worker-static)
// and that of the QEMU backend (a dynamic one in a read-only system root with a /proc, policy worker-system).
// And that of a dynamic executable which starts no programs (worker-dynamic), for some of the attacks. And that of
// grants which come to the same as worker-static: what becomes of attacks is the same, too.
enum class Jail { kStatic, kSystem, kDynamic, kGrants };

// What the worker holds when it attacks; -1 where it has none (yet).
struct Loot {
  int rpc = 3;
  int disk = -1;
  int counters = -1;
  int console = -1;
  const char* token = "";   // part of the names of what the test laid out on the host, see traps.h
  const char* rings = "";   // the argument that tells of its rings, see vmmhost/rings.h
  const char* epolls = "";  // and of its instances of epoll, see vmmhost/epolls.h
};

// When the attack is made: by a static constructor before main, from the confirm call (greeted, not yet given
// anything), when everything was attached and the guest is to start, or then from a second thread.
enum class Moment { kConstructor, kConfirm, kStart, kThread };

// What is seen from outside.
enum class Fate {
  kKilled,       // SIGSYS
  kErrno,        // the call failed with `errnoValue`
  kHarmless,     // it succeeded, and means nothing: the test looks at the host afterwards
  kRefused,      // the host saw it and sent no configuration
  kEnded,        // the worker is no worker any more and has ended; its VM with it
  kBroken,       // the host does not understand what it sent, and ended the VM
  kOutOfMemory,  // ended by its control group
};

struct Outcome {
  Fate fate = Fate::kKilled;
  int errnoValue = 0;
};

inline constexpr Outcome kKilled{Fate::kKilled};
inline constexpr Outcome kHarmless{Fate::kHarmless};
inline constexpr Outcome kRefused{Fate::kRefused};
inline constexpr Outcome kEnded{Fate::kEnded};
inline constexpr Outcome kBroken{Fate::kBroken};
inline constexpr Outcome kOutOfMemory{Fate::kOutOfMemory};
constexpr Outcome fails(int errnoValue) {
  return {Fate::kErrno, errnoValue};
}

enum class When : std::uint8_t {
  kAlways,
  kConstructor,  // only before the host has looked at it
  kStart,        // only then: it takes long
  kHolding,      // only when it was handed something: kStart and kThread
  kStays,        // no attack of its own: the worker goes on after it, for tests that look at others meanwhile
};

struct Attack {
  const char* name;
  // Returns 0 when the attack succeeded, otherwise an errno value. Made so that it does harm where nothing stops it.
  int (*run)(const Loot& loot);
  Outcome inStatic = kKilled;
  Outcome inSystem = kKilled;
  When when = When::kAlways;

  constexpr const Outcome& in(Jail jail) const {
    return jail == Jail::kStatic || jail == Jail::kGrants ? inStatic : inSystem;
  }
};

// Their names on the command line: "constructor", "confirm", "start", "thread"; "static", "system", "dynamic",
// "grants".
const char* momentName(Moment moment);
const char* jailName(Jail jail);

// Whether the attack can be made at this moment.
bool isTime(const Attack& attack, Moment moment);

struct Group {
  const char* name;
  std::span<const Attack> attacks;
};
std::span<const Group> groups();

std::span<const Attack> fileAttacks();
std::span<const Attack> socketAttacks();
std::span<const Attack> processAttacks();
std::span<const Attack> kernelAttacks();
std::span<const Attack> memoryAttacks();
std::span<const Attack> lootAttacks();
std::span<const Attack> quotaAttacks();
std::span<const Attack> ringAttacks();
std::span<const Attack> systemAttacks();

// All of them.
std::vector<Attack> allAttacks();
// Null when there is none of this name.
const Attack* findAttack(std::string_view name);  // allocates nothing: a constructor calls it

}  // namespace vmmhost::hostile
