// What the vmmhost command exits with.
#pragma once

#include "vmmhost/error.h"

namespace vmmhost::cli {

inline constexpr int kExitOk = 0;            // also: the guest powered itself off
inline constexpr int kExitCrashed = 1;       // the guest crashed or panicked, or its worker died
inline constexpr int kExitReset = 3;         // the guest asked for a reset
inline constexpr int kExitTimeout = 124;     // --timeout ended it
inline constexpr int kExitFailed = 125;      // vmmhost's own error, or wrong usage
inline constexpr int kExitUnusable = 126;    // the backend, or its jail, cannot be had on this machine
inline constexpr int kExitNotFound = 127;    // no such VM, file or backend
inline constexpr int kExitSignalBase = 128;  // plus the number of the signal that ended the command

constexpr int exitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
    case ErrorCode::kConfinement:
      return kExitUnusable;
    case ErrorCode::kNotFound:
      return kExitNotFound;
    default:
      return kExitFailed;
  }
}

}  // namespace vmmhost::cli
