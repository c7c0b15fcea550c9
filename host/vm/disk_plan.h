// How long the files of a VM's writable disks may become, and what is done about those that became longer.
#pragma once

#include <kj/async-unix.h>

#include <cstdint>
#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::vm {

// The limit on what a worker may write (RLIMIT_FSIZE) is one for all of its files: the largest plan. So a disk can
// become as long as another one is planned while the VM runs, and is cut back at its end. Today's length is the plan of
// a raw disk; of a qcow2 image it is what the image takes when the guest has written all of its disk.
class DiskPlans {
 public:
  // A regular file, open for reading and writing; `subject` is how messages call it, "disks[0]: path". Throws Error
  // (kInvalidArgument) for what is no image of this format, with a message that tells neither subject nor field.
  void add(std::string subject, Fd file, schema::Disk::Format format);

  // Of all: bytes. 0: there is none.
  std::uint64_t largest() const { return largest_; }

  // Whether any file is not as planned, or cannot be looked at: a few system calls each, whatever the worker did.
  bool needSettling() const noexcept;
  // Once nothing writes to them any more: cuts raw disks back that are longer than planned. Tells of each one, and of
  // each image whose header would make the plan of its next start a larger one. An image that is longer than planned,
  // as one beside a larger disk can be, is told and left: what lies behind its plan may be what the guest wrote. May
  // take a while, as file systems give space back.
  std::vector<std::string> settle() const;

 private:
  struct Plan {
    std::string subject;
    Fd file;
    schema::Disk::Format format;
    std::uint64_t startBytes;  // its length when it was opened
    std::uint64_t bytes;
    std::uint64_t virtualBytes;  // of qcow2
  };
  static void settle(const Plan& plan, std::vector<std::string>& told);

  std::vector<Plan> plans_;
  std::uint64_t largest_ = 0;
};

// settle() on a thread of its own, while the event loop goes on. Giving the promise up waits for the thread.
kj::Promise<std::vector<std::string>> settleAside(kj::UnixEventPort& port, DiskPlans plans);

}  // namespace vmmhost::vm
