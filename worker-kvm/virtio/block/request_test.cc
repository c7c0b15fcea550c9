#include "worker-kvm/virtio/block/request.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>
#include <vector>

namespace vmmhost::kvm::virtio::block {
namespace {

constexpr std::uint64_t kSectors = 64;

// A request in memory of its own, cut into segments of any lengths.
class Written {
 public:
  Written(std::uint32_t type, std::uint64_t sector, std::vector<std::uint8_t> data, std::size_t room)
      : readable_(kHeaderBytes), writable_(room + 1, 0xaa) {
    std::memcpy(readable_.data(), &type, 4);
    std::memcpy(readable_.data() + 8, &sector, 8);
    readable_.insert(readable_.end(), data.begin(), data.end());
    cut({readable_.size()}, {writable_.size()});
  }

  Chain& cut(const std::vector<std::size_t>& readable, const std::vector<std::size_t>& writable) {
    chain_ = {};
    fill(chain_.readable, chain_.readableBytes, readable_, readable);
    fill(chain_.writable, chain_.writableBytes, writable_, writable);
    return chain_;
  }
  Chain& chain() { return chain_; }
  std::uint8_t* lastByte() { return &writable_.back(); }
  std::uint8_t* readable() { return readable_.data(); }
  std::uint8_t* writable() { return writable_.data(); }

 private:
  static void fill(std::vector<iovec>& segments, std::uint64_t& total, std::vector<std::uint8_t>& bytes,
                   const std::vector<std::size_t>& lengths) {
    for (const std::size_t length : lengths) {
      segments.push_back({bytes.data() + total, length});
      total += length;
    }
  }

  std::vector<std::uint8_t> readable_;
  std::vector<std::uint8_t> writable_;
  Chain chain_;
};

constexpr Shape kWritable{kSectors, false, true, true};

Request parsed(Written& written, const Shape& shape = kWritable) {
  const auto request = parseRequest(written.chain(), shape);
  EXPECT_TRUE(request);
  EXPECT_EQ(request->status, written.lastByte());
  return *request;
}

Request parsedOf(std::uint32_t type, std::uint64_t sector, std::size_t data, std::size_t room,
                 const Shape& shape = kWritable) {
  Written written(type, sector, std::vector<std::uint8_t>(data), room);
  return parsed(written, shape);
}

void expectAnswer(const Request& request, Status status) {
  EXPECT_EQ(request.action, Action::kAnswer);
  EXPECT_EQ(request.answer, status);
}

TEST(BlockRequest, readsAndWritesInsideTheDisk_areTaken) {
  const Request read = parsedOf(0, 3, 0, 1024);
  EXPECT_EQ(read.action, Action::kRead);
  EXPECT_EQ(read.offset, 3 * 512u);
  EXPECT_EQ(read.bytes, 1024u);
  EXPECT_EQ(read.room, 1024u);
  const Request write = parsedOf(1, kSectors - 1, 512, 0);
  EXPECT_EQ(write.action, Action::kWrite);
  EXPECT_EQ(write.offset, (kSectors - 1) * 512);
  EXPECT_EQ(write.bytes, 512u);
  EXPECT_EQ(write.room, 0u);
  expectAnswer(parsedOf(0, kSectors, 0, 0), Status::kOk);  // nothing, at the very end
}

TEST(BlockRequest, whatReachesBeyondTheDisk_isAnError) {
  expectAnswer(parsedOf(0, kSectors, 0, 512), Status::kIoErr);
  expectAnswer(parsedOf(1, kSectors - 1, 1024, 0), Status::kIoErr);
  for (const std::uint64_t sector :
       {kSectors + 1, ~std::uint64_t{0}, ~std::uint64_t{0} / 512, std::uint64_t{1} << 55, std::uint64_t{1} << 63}) {
    expectAnswer(parsedOf(0, sector, 0, 512), Status::kIoErr);
    expectAnswer(parsedOf(1, sector, 512, 0), Status::kIoErr);
  }
}

TEST(BlockRequest, partsOfSectors_areAnError) {
  expectAnswer(parsedOf(0, 0, 0, 511), Status::kIoErr);
  expectAnswer(parsedOf(0, 0, 0, 513), Status::kIoErr);
  expectAnswer(parsedOf(1, 0, 100, 0), Status::kIoErr);
}

TEST(BlockRequest, writesToAReadOnlyDisk_areAnError) {
  const Shape readOnly{kSectors, true, true, true};
  expectAnswer(parsedOf(1, 0, 512, 0, readOnly), Status::kIoErr);
  expectAnswer(parsedOf(11, 0, 16, 0, readOnly), Status::kIoErr);
  expectAnswer(parsedOf(13, 0, 16, 0, readOnly), Status::kIoErr);
  EXPECT_EQ(parsedOf(0, 0, 0, 512, readOnly).action, Action::kRead);
  EXPECT_EQ(parsedOf(4, 0, 0, 0, readOnly).action, Action::kFlush);
}

TEST(BlockRequest, unknownTypes_areUnsupported) {
  for (const std::uint32_t type : {2u, 3u, 5u, 9u, 10u, 12u, 14u, 16u, 0xffffffffu, 0x80000000u, 0x100u}) {
    expectAnswer(parsedOf(type, 0, 512, 512), Status::kUnsupp);
  }
}

TEST(BlockRequest, whatWasNotAgreedOn_isUnsupported) {
  expectAnswer(parsedOf(11, 0, 16, 0, {kSectors, false, false, true}), Status::kUnsupp);
  expectAnswer(parsedOf(13, 0, 16, 0, {kSectors, false, true, false}), Status::kUnsupp);
}

TEST(BlockRequest, noRoomForAStatus_isNoRequest) {
  Written written(0, 0, {}, 0);
  EXPECT_FALSE(parseRequest(written.cut({16}, {}), kWritable));
  EXPECT_FALSE(parseRequest(Chain{}, kWritable));
}

TEST(BlockRequest, headerThatIsCutShort_isAnError) {
  Written written(0, 0, {}, 512);
  for (const std::size_t bytes : {0u, 1u, 15u}) {
    written.cut(bytes == 0 ? std::vector<std::size_t>{} : std::vector<std::size_t>{bytes}, {513});
    expectAnswer(parsed(written), Status::kIoErr);
  }
}

TEST(BlockRequest, idIsAtMostTwentyBytes) {
  EXPECT_EQ(parsedOf(8, 0, 0, 20).bytes, 20u);
  EXPECT_EQ(parsedOf(8, 0, 0, 512).bytes, 20u);
  EXPECT_EQ(parsedOf(8, 0, 0, 7).bytes, 7u);
  EXPECT_EQ(parsedOf(8, 0, 0, 0).bytes, 0u);
}

// 2.7.4.1: how a driver frames a request tells nothing.
TEST(BlockRequest, framing_makesNoDifference) {
  Written write(1, 1, std::vector<std::uint8_t>(1024), 0);
  std::array<iovec, 8> target{};
  for (const auto& lengths : std::vector<std::vector<std::size_t>>{
           {1040}, {16, 1024}, {4, 12, 512, 512}, {8, 9, 1023}, {15, 1, 1, 1023}, {3, 700, 337}}) {
    write.cut(lengths, {1});
    const Request request = parsed(write);
    EXPECT_EQ(request.action, Action::kWrite);
    const auto data = dataOf(write.chain(), request, target);
    ASSERT_FALSE(data.empty());
    EXPECT_EQ(data[0].iov_base, write.readable() + 16);
    std::size_t sum = 0;
    for (const iovec& segment : data) {
      EXPECT_NE(segment.iov_len, 0u);
      EXPECT_EQ(segment.iov_base, write.readable() + 16 + sum);
      sum += segment.iov_len;
    }
    EXPECT_EQ(sum, 1024u);
  }
  Written read(0, 1, {}, 512);
  for (const auto& lengths :
       std::vector<std::vector<std::size_t>>{{513}, {512, 1}, {511, 2}, {1, 511, 1}, {100, 412, 1}}) {
    read.cut({16}, lengths);
    const Request request = parsed(read);
    const auto data = dataOf(read.chain(), request, target);
    const auto sum = std::accumulate(data.begin(), data.end(), std::size_t{0},
                                     [](std::size_t bytes, const iovec& segment) { return bytes + segment.iov_len; });
    EXPECT_EQ(sum, 512u);
    EXPECT_EQ(data[0].iov_base, read.writable());
  }
}

void addRange(std::vector<std::uint8_t>& list, std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags) {
  std::array<std::uint8_t, kRangeBytes> bytes{};
  std::memcpy(bytes.data(), &sector, 8);
  std::memcpy(bytes.data() + 8, &sectors, 4);
  std::memcpy(bytes.data() + 12, &flags, 4);
  list.insert(list.end(), bytes.begin(), bytes.end());
}

struct Listed {
  ParsedRanges parsed;
  Ranges ranges{};
};
Listed listedOf(std::uint32_t type, const std::vector<std::uint8_t>& list, std::uint64_t sectors = kSectors) {
  Written written(type, 0, list, 0);
  const Shape shape{sectors, false, true, true};
  const Request request = parsed(written, shape);
  EXPECT_NE(request.action, Action::kAnswer);
  Listed listed;
  listed.parsed = parseRanges(written.chain(), request, shape, listed.ranges);
  return listed;
}
Listed oneRange(std::uint32_t type, std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags,
                std::uint64_t disk = kSectors) {
  std::vector<std::uint8_t> list;
  addRange(list, sector, sectors, flags);
  return listedOf(type, list, disk);
}

TEST(BlockRanges, listOfADiscard_isTakenWhole) {
  std::vector<std::uint8_t> list;
  for (std::uint32_t i = 0; i < kMaxDiscardRanges; ++i) {
    addRange(list, 4 * i, i % 5, 0);
  }
  const Listed listed = listedOf(11, list);
  EXPECT_EQ(listed.parsed.status, Status::kOk);
  ASSERT_EQ(listed.parsed.count, kMaxDiscardRanges - 4);  // four are empty
  EXPECT_EQ(listed.ranges[2].offset, 4u * 3 * 512);
  EXPECT_EQ(listed.ranges[2].bytes, 3u * 512);
}

TEST(BlockRanges, listsOfAWrongLength_areAnError) {
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{15}, std::size_t{17}, (kMaxDiscardRanges + 1) * kRangeBytes}) {
    expectAnswer(parsedOf(11, 0, bytes, 0), Status::kIoErr);
  }
  expectAnswer(parsedOf(13, 0, 2 * kRangeBytes, 0), Status::kIoErr);
}

TEST(BlockRanges, rangesBeyondTheDiskOrTheLimit_areAnError) {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 40;
  for (const std::uint32_t type : {11u, 13u}) {
    EXPECT_EQ(oneRange(type, kSectors, 1, 0).parsed.status, Status::kIoErr);
    EXPECT_EQ(oneRange(type, ~std::uint64_t{0}, 2, 0).parsed.status, Status::kIoErr);
    EXPECT_EQ(oneRange(type, 1, kSectors, 0).parsed.status, Status::kIoErr);
    EXPECT_EQ(oneRange(type, 0, 0xffffffff, 0, kHuge).parsed.status, Status::kIoErr);
  }
  EXPECT_EQ(oneRange(11, 0, kMaxDiscardSectors, 0, kHuge).parsed.count, 1u);
  EXPECT_EQ(oneRange(11, 0, kMaxDiscardSectors + 1, 0, kHuge).parsed.status, Status::kIoErr);
  EXPECT_EQ(oneRange(13, 0, kMaxWriteZeroesSectors, 0, kHuge).parsed.count, 1u);
  EXPECT_EQ(oneRange(13, 0, kMaxWriteZeroesSectors + 1, 0, kHuge).parsed.status, Status::kIoErr);
}

TEST(BlockRanges, flags_areHeldToTheSpecification) {
  EXPECT_EQ(oneRange(11, 0, 1, kUnmap).parsed.status, Status::kUnsupp);
  EXPECT_EQ(oneRange(11, 0, 1, 2).parsed.status, Status::kUnsupp);
  EXPECT_EQ(oneRange(13, 0, 1, 2).parsed.status, Status::kUnsupp);
  EXPECT_EQ(oneRange(13, 0, 1, 0x80000001).parsed.status, Status::kUnsupp);
  EXPECT_TRUE(oneRange(13, 0, 1, kUnmap).ranges[0].unmap);
  EXPECT_FALSE(oneRange(13, 0, 1, 0).ranges[0].unmap);
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::block
