// What tests of TAP devices share.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::net {

// A network of its own with devices that an administrator has made.
class NetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static const int error = ::unshare(CLONE_NEWNET) == 0 ? 0 : errno;
    if (error != 0) {
      GTEST_SKIP() << systemError("a network namespace and TAP devices need root", error).message();
    }
  }
  void TearDown() override {
    for (const std::string& name : made_) {
      const Fd device = attach(name, flags_);
      ::ioctl(device.get(), TUNSETPERSIST, 0);
    }
  }
  static Fd attach(const std::string& name, int flags) {
    Fd device(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(flags);
    EXPECT_EQ(::ioctl(device.get(), TUNSETIFF, &request), 0) << name;
    return device;
  }
  void make(const std::string& name, int flags, uid_t owner = static_cast<uid_t>(-1)) {
    const Fd device = attach(name, flags);
    EXPECT_EQ(::ioctl(device.get(), TUNSETPERSIST, 1), 0);
    if (owner != static_cast<uid_t>(-1)) {
      EXPECT_EQ(::ioctl(device.get(), TUNSETOWNER, owner), 0);
    }
    made_.push_back(name);
    flags_ = flags;
  }
  int flags() const { return flags_; }  // of the device that was made last

 private:
  std::vector<std::string> made_;
  int flags_ = 0;
};

}  // namespace vmmhost::net
