#include <array>

#include "tests/hostile/attack.h"

namespace vmmhost::hostile {
namespace {

std::array<std::span<const Attack>, 6> groups() {
  return {fileAttacks(), socketAttacks(), processAttacks(), kernelAttacks(), memoryAttacks(), lootAttacks()};
}

}  // namespace

const char* momentName(Moment moment) {
  constexpr const char* kNames[] = {"constructor", "confirm", "start", "thread"};
  return kNames[static_cast<int>(moment)];
}

std::vector<Attack> allAttacks() {
  std::vector<Attack> all;
  for (const auto group : groups()) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

const Attack* findAttack(std::string_view name) {
  for (const auto group : groups()) {
    for (const Attack& attack : group) {
      if (name == attack.name) {
        return &attack;
      }
    }
  }
  return nullptr;
}

}  // namespace vmmhost::hostile
