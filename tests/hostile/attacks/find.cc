#include "tests/hostile/attack.h"

namespace vmmhost::hostile {

const char* momentName(Moment moment) {
  constexpr const char* kNames[] = {"constructor", "confirm", "start", "thread"};
  return kNames[static_cast<int>(moment)];
}

const char* jailName(Jail jail) {
  constexpr const char* kNames[] = {"static", "system", "dynamic", "grants"};
  return kNames[static_cast<int>(jail)];
}

bool isTime(const Attack& attack, Moment moment) {
  switch (attack.when) {
    case When::kConstructor:
      return moment == Moment::kConstructor;
    case When::kStart:
      return moment == Moment::kStart;
    case When::kHolding:
      return moment == Moment::kStart || moment == Moment::kThread;
    case When::kStays:
      return false;
    default:
      return true;
  }
}

std::span<const Group> groups() {
  static const Group kGroups[] = {
      {"files", fileAttacks()},    {"sockets", socketAttacks()}, {"processes", processAttacks()},
      {"kernel", kernelAttacks()}, {"memory", memoryAttacks()},  {"loot", lootAttacks()},
      {"quotas", quotaAttacks()},  {"rings", ringAttacks()},     {"surroundings", systemAttacks()}};
  return kGroups;
}

std::vector<Attack> allAttacks() {
  std::vector<Attack> all;
  for (const Group& group : groups()) {
    all.insert(all.end(), group.attacks.begin(), group.attacks.end());
  }
  return all;
}

const Attack* findAttack(std::string_view name) {
  for (const Group& group : groups()) {
    for (const Attack& attack : group.attacks) {
      if (name == attack.name) {
        return &attack;
      }
    }
  }
  return nullptr;
}

}  // namespace vmmhost::hostile
