// posix_spawn's own structures with their ends: how this library starts its other programs (never fork: an embedder may
// have threads and a large address space).
#pragma once

#include <signal.h>
#include <spawn.h>

#include "vmmhost/error.h"

namespace vmmhost {

inline void checkSpawn(int result) {
  if (result != 0) {
    throw systemError("preparing to start a program", result);
  }
}

class SpawnFileActions {
 public:
  SpawnFileActions() { checkSpawn(::posix_spawn_file_actions_init(&actions_)); }
  ~SpawnFileActions() { ::posix_spawn_file_actions_destroy(&actions_); }
  SpawnFileActions(const SpawnFileActions&) = delete;
  SpawnFileActions& operator=(const SpawnFileActions&) = delete;

  // Carried out in this order: a source must not be the target of an earlier one.
  void duplicate(int source, int target) { checkSpawn(::posix_spawn_file_actions_adddup2(&actions_, source, target)); }
  void openNull(int target, int flags) {
    checkSpawn(::posix_spawn_file_actions_addopen(&actions_, target, "/dev/null", flags, 0));
  }
  void closeFrom(int first) { checkSpawn(::posix_spawn_file_actions_addclosefrom_np(&actions_, first)); }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

// A session of its own, no signal blocked, every signal at its default.
class SpawnAttributes {
 public:
  SpawnAttributes() {
    checkSpawn(::posix_spawnattr_init(&attributes_));
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_,
                               POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | static_cast<short>(POSIX_SPAWN_SETSID));
  }
  ~SpawnAttributes() { ::posix_spawnattr_destroy(&attributes_); }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

}  // namespace vmmhost
