// Looks at the first bytes of files before QEMU does: what it would refuse obscurely, or follow to another file.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace qemubackend {

inline constexpr std::size_t kImageHeaderBytes = 4096;

// Throws vmmhost::Error, naming `field`, for a file that is not qcow2 (kInvalidArgument), and for one that keeps data
// in another file, whose name is the image's own choice (kUnsupported).
void checkQcow2Header(const std::string& field, std::span<const std::byte> header);

}  // namespace qemubackend
