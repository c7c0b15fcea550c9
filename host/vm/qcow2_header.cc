#include "host/vm/qcow2_header.h"

#include <algorithm>
#include <cstring>

#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

constexpr std::size_t kVersion2Bytes = 72;
constexpr std::uint64_t kMinClusterBits = 9;
constexpr std::uint64_t kMaxClusterBits = 21;
constexpr std::uint64_t kMaxRefcountOrder = 6;
constexpr std::uint64_t kTableEntryBytes = 8;
// What QEMU takes at most (its block/qcow2.h). With these all sums below are far from 64 bits.
constexpr std::uint64_t kMaxL1Bytes = std::uint64_t{32} << 20;
constexpr std::uint64_t kMaxRefcountTableBytes = std::uint64_t{8} << 20;
// incompatible_features and autoclear_features
constexpr std::uint64_t kDirty = 1 << 0;
constexpr std::uint64_t kExtendedL2 = 1 << 4;
constexpr std::uint64_t kBitmaps = 1 << 0;
// For extensions of the header, which no table counts.
constexpr std::uint64_t kSlackBytes = std::uint64_t{1} << 20;

std::uint64_t bigEndian(std::span<const std::byte> bytes, std::size_t offset, std::size_t size) {
  std::uint64_t value = 0;
  for (const std::byte byte : bytes.subspan(offset, size)) {
    value = value << 8 | std::to_integer<std::uint64_t>(byte);
  }
  return value;
}

std::uint64_t divideUp(std::uint64_t value, std::uint64_t by) {
  return value / by + (value % by == 0 ? 0 : 1);
}

std::uint64_t clusterBytes(const Qcow2Header& header) {
  return std::uint64_t{1} << header.clusterBits;
}

std::uint64_t l2TablesOf(const Qcow2Header& header) {
  const std::uint64_t perTable = clusterBytes(header) / (header.hasWideL2Entries ? 16 : 8);
  return divideUp(divideUp(header.virtualBytes, clusterBytes(header)), perTable);
}

[[noreturn]] void refuse(const char* what) {
  throw Error(ErrorCode::kInvalidArgument, what, "`qemu-img check` tells more of an image");
}

}  // namespace

Qcow2Header parseQcow2Header(std::span<const std::byte> bytes) {
  if (bytes.size() < kVersion2Bytes || std::memcmp(bytes.data(), "QFI\xfb", 4) != 0) {
    throw Error(ErrorCode::kInvalidArgument, "the file is not a qcow2 image", "is it a raw image? then say format raw");
  }
  const std::uint64_t version = bigEndian(bytes, 4, 4);
  if (version != 2 && (version != 3 || bytes.size() < kQcow2HeaderBytes)) {
    refuse("a qcow2 image of an unknown version");
  }
  const std::uint64_t clusterBits = bigEndian(bytes, 20, 4);
  if (clusterBits < kMinClusterBits || clusterBits > kMaxClusterBits) {
    refuse("a qcow2 image whose clusters are not of 512 bytes to 2 MiB");
  }
  Qcow2Header header;
  header.clusterBits = static_cast<std::uint32_t>(clusterBits);
  header.virtualBytes = bigEndian(bytes, 24, 8);
  header.l1Entries = bigEndian(bytes, 36, 4);
  header.refcountTableClusters = bigEndian(bytes, 56, 4);
  header.keepsMore = bigEndian(bytes, 60, 4) != 0;  // nb_snapshots
  if (version == 3) {
    const std::uint64_t incompatible = bigEndian(bytes, 72, 8);
    const std::uint64_t refcountOrder = bigEndian(bytes, 96, 4);
    if (refcountOrder > kMaxRefcountOrder) {
      refuse("a qcow2 image whose reference counts have more than 64 bits");
    }
    header.refcountBits = 1u << refcountOrder;
    header.hasWideL2Entries = (incompatible & kExtendedL2) != 0;
    header.keepsMore = header.keepsMore || (incompatible & kDirty) != 0 || (bigEndian(bytes, 88, 8) & kBitmaps) != 0;
  }
  if (header.refcountTableClusters == 0) {
    refuse("a qcow2 image without reference counts");
  }
  const std::uint64_t mostL1Entries = kMaxL1Bytes / kTableEntryBytes;
  if (header.l1Entries > mostL1Entries || l2TablesOf(header) > mostL1Entries ||
      header.refcountTableClusters > kMaxRefcountTableBytes / clusterBytes(header)) {
    refuse("a qcow2 image whose tables are larger than QEMU takes");
  }
  return header;
}

std::uint64_t plannedBytes(const Qcow2Header& header, std::uint64_t today) {
  const std::uint64_t cluster = clusterBytes(header);
  const std::uint64_t l2Tables = l2TablesOf(header);
  const std::uint64_t l1 = divideUp(std::max(l2Tables, header.l1Entries) * kTableEntryBytes, cluster);
  const std::uint64_t content = 1 + divideUp(header.virtualBytes, cluster) + l2Tables + l1;

  // Each cluster of the file has a count, those of the counts too. Both only grow, and by ever less.
  const std::uint64_t countsPerBlock = cluster * 8 / header.refcountBits;
  std::uint64_t blocks = 0;
  std::uint64_t table = header.refcountTableClusters;
  for (bool grown = true; grown;) {
    const std::uint64_t neededBlocks = divideUp(content + blocks + table, countsPerBlock);
    const std::uint64_t neededTable = std::max(table, divideUp(neededBlocks * kTableEntryBytes, cluster));
    grown = neededBlocks > blocks || neededTable > table;
    blocks = std::max(blocks, neededBlocks);
    table = neededTable;
  }
  std::uint64_t clusters = content + blocks + table;
  if (table > header.refcountTableClusters) {
    // A table that is too small is made anew, half as large again, behind all that the old one could count: up to a
    // block's worth of clusters is passed over. (alloc_refcount_block and qcow2_refcount_area in
    // block/qcow2-refcount.c)
    clusters += countsPerBlock + 2 * table;
  }
  const std::uint64_t full = clusters * cluster + kSlackBytes;
  return header.keepsMore ? today + full : std::max(today, full);
}

}  // namespace vmmhost::vm
