#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "vmmhost/error.h"
#include "vmmhost/seccomp.h"
#include "vmmhost/setup_stage.h"

namespace vmmhost {
namespace {

// As the spawn stub has locked them: no rights come from being uid 0, from changes of ids or from ambient sets.
constexpr int kSecureBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                            SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                            SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

[[noreturn]] void isLeft(const std::string& what) {
  throw Error(ErrorCode::kConfinement, "the set-up cannot end: " + what);
}

void require(bool ok, const char* what) {
  if (!ok) {
    isLeft(systemError(what, errno).message());
  }
}

// The calls may have been carried out and yet have done nothing: what counts is what is there afterwards.
void requireNone() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  require(::syscall(SYS_capget, &header, sets) == 0, "capget");
  for (const auto& set : sets) {
    if ((set.permitted | set.effective | set.inheritable) != 0) {
      isLeft("capabilities are left in the permitted, effective or inheritable set");
    }
  }
  for (int capability = 0;; ++capability) {
    const int isBounding = ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (isBounding < 0) {
      if (capability == 0) {
        require(false, "PR_CAPBSET_READ");
      }
      break;  // the kernel knows no more of them
    }
    const int isAmbient = ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0);
    if (isBounding != 0 || isAmbient != 0) {
      isLeft("capability " + std::to_string(capability) + " is left in the " +
             (isBounding != 0 ? "bounding" : "ambient") + " set");
    }
  }
  const int bits = ::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
  if (bits < 0 || (bits & kSecureBits) != kSecureBits) {
    isLeft("the securebits are " + std::to_string(bits) + ", which are not locked");
  }
  if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
    isLeft("no_new_privs is not set");
  }
}

}  // namespace

void endSetup(std::span<const sock_filter> filter) {
  if (!__libc_single_threaded) {
    isLeft("the process has or had other threads, each with capabilities of its own");
  }
  require(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0, "clearing the ambient set");
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2] = {};
  require(::syscall(SYS_capset, &header, none) == 0, "giving up capabilities");
  requireNone();
  if (const int error = seccomp::install(filter, true)) {
    isLeft(systemError("installing the filter behind it", error).message());
  }
}

}  // namespace vmmhost
