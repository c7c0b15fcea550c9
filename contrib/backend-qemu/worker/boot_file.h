// Files that QEMU takes by path only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmmhost/fd.h"

namespace qemubackend {

// Bytes from `offset` on; fewer at the end of the file. Throws vmmhost::Error, naming `what`, as all of these.
std::size_t readFrom(int descriptor, std::span<std::byte> into, std::uint64_t offset, const std::string& what);
std::uint64_t fileSize(int descriptor, const std::string& what);

// Up to `size` bytes from the file's beginning.
std::vector<std::byte> readBeginning(int descriptor, std::size_t size, const std::string& what);

// A descriptor that a process of this user can open anew as /proc/self/fd/N. That is `file` itself where permitted, as
// with every host since 1.2 (VMMHOST_PLAN_REOPENABLE); else a copy of it in memory, which only older ones allow. Throws
// vmmhost::Error, naming `what`.
vmmhost::Fd reopenable(vmmhost::Fd file, const std::string& what);

}  // namespace qemubackend
