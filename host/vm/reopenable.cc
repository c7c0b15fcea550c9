#include "host/vm/reopenable.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/memory_file.h"

namespace vmmhost::vm {
namespace {

// As the kernel decides for a process without capabilities and further groups; who has more gets a copy all the same.
bool canRead(const struct stat& info, uid_t uid, gid_t gid) {
  const mode_t bit = info.st_uid == uid ? S_IRUSR : info.st_gid == gid ? S_IRGRP : S_IROTH;
  return (info.st_mode & bit) != 0;
}

Fd copyOf(int file, std::uint64_t bytes, const std::string& field) {
  Fd copy = makeMemoryFile("boot file", bytes);
  std::vector<char> block(std::size_t{1} << 20);
  for (std::uint64_t offset = 0; offset < bytes;) {
    const auto at = static_cast<off_t>(offset);
    const ssize_t got = ::pread(file, block.data(), std::min<std::uint64_t>(block.size(), bytes - offset), at);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      throw got == 0 ? Error(ErrorCode::kFailedPrecondition, field + ": became shorter while it was read", {}, true)
                     : systemError(field, errno);
    }
    if (::pwrite(copy.get(), block.data(), static_cast<std::size_t>(got), at) != got) {
      throw systemError(field + ": memory for a copy", errno);
    }
    offset += static_cast<std::uint64_t>(got);
  }
  if (::fchmod(copy.get(), 0644) != 0) {
    throw systemError(field + ": letting others read a copy", errno);
  }
  return copy;
}

void makeReopenable(Fd& file, const std::string& field, uid_t uid, gid_t gid) {
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) {
    throw systemError(field, errno);
  }
  if (canRead(info, uid, gid)) {
    return;
  }
  const auto bytes = static_cast<std::uint64_t>(info.st_size);
  if (bytes > kMaxCopiedBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                field + ": has " + std::to_string(bytes) + " bytes; of a file that others may not read at most " +
                    std::to_string(kMaxCopiedBytes) + " are copied for the worker",
                "let others read the file");
  }
  file = copyOf(file.get(), bytes, field);
}

}  // namespace

void makeReopenable(OpenedResources& resources, schema::Boot::Reader boot, uid_t uid, gid_t gid) {
  const auto replace = [&](const char* field, schema::FileRef::Reader file) {
    for (auto& opened : resources.files) {
      if (opened.resource == file.getResource()) {
        makeReopenable(opened.fd, field, uid, gid);
      }
    }
  };
  replace("boot.kernel", boot.getKernel());
  replace("boot.initrd", boot.getInitrd());
  replace("boot.firmware", boot.getFirmware());
}

}  // namespace vmmhost::vm
