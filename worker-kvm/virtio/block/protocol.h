// Numbers and layouts of the block device. Source: virtio 1.2, 5.2.
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio::block {

inline constexpr std::uint16_t kDeviceType = 2;
inline constexpr std::uint64_t kSectorBytes = 512;  // 5.2.4: the unit of the protocol, whatever blk_size says

// 5.2.3: feature bits.
inline constexpr std::uint64_t kFeatureSegMax = featureBit(2);
inline constexpr std::uint64_t kFeatureRo = featureBit(5);
inline constexpr std::uint64_t kFeatureBlkSize = featureBit(6);
inline constexpr std::uint64_t kFeatureFlush = featureBit(9);
inline constexpr std::uint64_t kFeatureTopology = featureBit(10);
inline constexpr std::uint64_t kFeatureConfigWce = featureBit(11);
inline constexpr std::uint64_t kFeatureMq = featureBit(12);
inline constexpr std::uint64_t kFeatureDiscard = featureBit(13);
inline constexpr std::uint64_t kFeatureWriteZeroes = featureBit(14);

// 5.2.4: struct virtio_blk_config, as far as a feature of ours speaks of it.
struct Config {
  std::uint64_t capacity = 0;  // sectors
  std::uint32_t sizeMax = 0;
  std::uint32_t segMax = 0;
  std::uint8_t geometry[4] = {};
  std::uint32_t blkSize = 0;
  std::uint8_t physicalBlockExp = 0;
  std::uint8_t alignmentOffset = 0;
  std::uint16_t minIoSize = 0;
  std::uint32_t optIoSize = 0;
  std::uint8_t writeback = 0;
  std::uint8_t unused0 = 0;
  std::uint16_t numQueues = 0;
  std::uint32_t maxDiscardSectors = 0;
  std::uint32_t maxDiscardSeg = 0;
  std::uint32_t discardSectorAlignment = 0;
  std::uint32_t maxWriteZeroesSectors = 0;
  std::uint32_t maxWriteZeroesSeg = 0;
  std::uint8_t writeZeroesMayUnmap = 0;
  std::uint8_t unused1[3] = {};
};
static_assert(offsetof(Config, blkSize) == 20);
static_assert(offsetof(Config, writeback) == 32);
static_assert(offsetof(Config, maxDiscardSectors) == 36);
static_assert(offsetof(Config, writeZeroesMayUnmap) == 56);

// 5.2.6: requests.
enum class Type : std::uint32_t {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};
inline constexpr std::size_t kHeaderBytes = 16;  // le32 type, le32 reserved, le64 sector
inline constexpr std::size_t kIdBytes = 20;
// struct virtio_blk_discard_write_zeroes: le64 sector, le32 num_sectors, le32 flags.
inline constexpr std::size_t kRangeBytes = 16;
inline constexpr std::uint32_t kUnmap = 1;

enum class Status : std::uint8_t { kOk = 0, kIoErr = 1, kUnsupp = 2 };

}  // namespace vmmhost::kvm::virtio::block
