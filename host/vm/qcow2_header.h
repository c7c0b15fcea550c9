// What the header of a qcow2 image says of its size: read from bytes that anybody may have written.
// Source: docs/interop/qcow2.txt of QEMU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmmhost::vm {

inline constexpr std::size_t kQcow2HeaderBytes = 104;

struct Qcow2Header {
  std::uint32_t clusterBits = 16;  // 9 to 21
  std::uint32_t refcountBits = 16;
  std::uint64_t virtualBytes = 0;           // what the guest sees
  std::uint64_t l1Entries = 0;              // that there are
  std::uint64_t refcountTableClusters = 0;  // that there are
  bool hasWideL2Entries = false;
  // Internal snapshots or bitmaps keep what no table of the disk counts, or its counts of what is used may be wrong
  // (marked dirty): nothing of today's content need be free for the disk.
  bool keepsMore = false;
};

// `bytes`: the first kQcow2HeaderBytes of the file, or as many as there are. Throws Error (kInvalidArgument), whose
// message says what is wrong with the image and begins in the middle of a sentence: "is not a qcow2 image".
Qcow2Header parseQcow2Header(std::span<const std::byte> bytes);

// How long a file that has `today` bytes may have to become until each byte of the disk has been written.
std::uint64_t plannedBytes(const Qcow2Header& header, std::uint64_t today);

}  // namespace vmmhost::vm
