#include "host/vm/reopenable.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "ipc/jail/spawn/limits.h"
#include "vmmhost/error.h"
#include "vmmhost/memory_file.h"

namespace vmmhost::vm {
namespace {

// As the kernel decides for a process without capabilities and further groups; who has more gets a copy all the same.
bool canRead(const struct stat& info, uid_t uid, gid_t gid) {
  const mode_t bit = info.st_uid == uid ? S_IRUSR : info.st_gid == gid ? S_IRGRP : S_IROTH;
  return (info.st_mode & bit) != 0;
}

Fd copyOf(const BootFile& file, const std::atomic<bool>& isUnwanted) {
  Fd copy = makeMemoryFile("boot file", file.bytes);
  std::vector<char> block(std::size_t{1} << 20);
  for (std::uint64_t offset = 0; offset < file.bytes;) {
    if (isUnwanted) {
      throw Error(ErrorCode::kCancelled, file.field + ": nobody wants a copy any more");
    }
    const auto at = static_cast<off_t>(offset);
    const std::size_t wanted = std::min<std::uint64_t>(block.size(), file.bytes - offset);
    const ssize_t got = ::pread(file.fd.get(), block.data(), wanted, at);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      const Error shorter(ErrorCode::kFailedPrecondition, file.field + ": became shorter while it was read", {}, true);
      throw got == 0 ? shorter : systemError(file.field, errno);
    }
    if (::pwrite(copy.get(), block.data(), static_cast<std::size_t>(got), at) != got) {
      throw systemError(file.field + ": memory for a copy", errno);
    }
    offset += static_cast<std::uint64_t>(got);
  }
  if (::fchmod(copy.get(), 0644) != 0) {
    throw systemError(file.field + ": letting others read a copy", errno);
  }
  return copy;
}

}  // namespace

std::vector<BootFile> filesClosedTo(const OpenedResources& resources, schema::Boot::Reader boot, uid_t uid, gid_t gid) {
  std::vector<BootFile> closed;
  std::uint64_t all = 0;
  const auto look = [&](const char* field, schema::FileRef::Reader file) {
    for (const auto& opened : resources.files) {
      struct stat info = {};
      if (opened.resource != file.getResource()) {
        continue;
      }
      if (::fstat(opened.fd.get(), &info) != 0) {
        throw systemError(field, errno);
      }
      if (canRead(info, uid, gid)) {
        continue;
      }
      const auto bytes = static_cast<std::uint64_t>(info.st_size);
      all += bytes;
      if (all > kMaxCopiedBytes) {
        throw Error(ErrorCode::kInvalidArgument,
                    std::string(field) + ": has " + std::to_string(bytes) +
                        " bytes; of boot files that others may not read at most " + std::to_string(kMaxCopiedBytes) +
                        " are copied for the worker" + (all == bytes ? "" : ", all together"),
                    "let others read the file")
            .withField(field);
      }
      if (const auto error = spawn::tooLow(RLIMIT_FSIZE, bytes, std::string("a copy of ") + field)) {
        throw *error;
      }
      closed.push_back({opened.resource, field, bytes, opened.fd.duplicate()});
    }
  };
  look("boot.kernel", boot.getKernel());
  look("boot.initrd", boot.getInitrd());
  look("boot.firmware", boot.getFirmware());
  return closed;
}

std::vector<BootFile> copiesOf(std::vector<BootFile> files, const std::atomic<bool>& isUnwanted) {
  for (BootFile& file : files) {
    file.fd = aboutField(file.field, [&] { return copyOf(file, isUnwanted); });
  }
  return files;
}

void replaceBootFiles(OpenedResources& resources, std::vector<BootFile> copies) {
  for (BootFile& copy : copies) {
    for (auto& opened : resources.files) {
      if (opened.resource == copy.resource) {
        opened.fd = std::move(copy.fd);
      }
    }
  }
}

std::vector<int> descriptorsOf(const OpenedResources& resources, schema::Boot::Reader boot) {
  std::vector<int> found;
  const auto look = [&](bool isThere, schema::FileRef::Reader file) {
    for (const auto& opened : resources.files) {
      if (isThere && opened.resource == file.getResource()) {
        found.push_back(opened.fd.get());
      }
    }
  };
  look(boot.hasKernel(), boot.getKernel());
  look(boot.hasInitrd(), boot.getInitrd());
  look(boot.hasFirmware(), boot.getFirmware());
  return found;
}

}  // namespace vmmhost::vm
