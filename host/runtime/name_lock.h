// Who may do what with the entry of one name. The file `lock` of its runtime folder has two bytes that are locked apart
// from each other, by locks that belong to the open file (F_OFD_*), so that they end with the process that holds them:
//   life:   held by the supervisor for as long as it lives. Whether it is held can be asked without taking it.
//   change: held for a moment by whoever makes, reaps or removes the entry. Who that is stands in the file meanwhile:
//           its process id, and since when (CLOCK_MONOTONIC, in nanoseconds).
// A supervisor takes life while it holds change. What is removed is removed under change (or under life, by its own
// supervisor), the lock file last; who waited for a lock file that is gone starts again.
#pragma once

#include <chrono>
#include <string>

#include "host/runtime/directories.h"
#include "vmmhost/fd.h"

namespace vmmhost::runtime {

class NameLock {
 public:
  static constexpr std::chrono::milliseconds kPatience{5000};
  // Makes the runtime folder and its lock file if they are missing, and waits for change. Throws Error: kUnavailable,
  // retryable, when one process keeps it for longer than `patience`, as one that is suspended does; twice as long where
  // it does not say who it is. Nobody breaks the lock: what that process was about to do it does when it goes on.
  // kConfinement: what is there is no entry's.
  static NameLock take(const Directories& directories, const EntryName& name,
                       std::chrono::milliseconds patience = kPatience);
  NameLock(NameLock&&) noexcept = default;
  NameLock& operator=(NameLock&&) = delete;
  ~NameLock();  // gives change up
  // Whether some process held life when change was taken. If none did, none can before change is given up.
  bool lives() const { return lives_; }
  // For a supervisor: takes life and gives change up. False if somebody else holds life.
  bool becomeSupervisor();

  // Whether some process holds life now.
  static bool isHeld(int lockFile);
  // Removes the lock file and the folder; nothing else may be in it.
  static void removeEntry(int runtimeParent, int folder, const std::string& folderName) noexcept;

  int folder() const { return folder_.get(); }
  Fd takeFolder() { return std::move(folder_); }
  Fd takeLock() { return std::move(lock_); }

 private:
  NameLock(Fd folder, Fd lock, bool lives) : folder_(std::move(folder)), lock_(std::move(lock)), lives_(lives) {}
  Fd folder_, lock_;
  bool lives_;
  bool isChanging_ = true;
};

inline constexpr char kControlSocket[] = "control";

}  // namespace vmmhost::runtime
