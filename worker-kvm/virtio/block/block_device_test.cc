// What a driver gets for its requests, on real files and with both engines.
#include "worker-kvm/virtio/block/block_device.h"

#include <gtest/gtest.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include <array>
#include <random>

#include "worker-kvm/virtio/block/test_disk.h"

namespace vmmhost::kvm::virtio::block::test {
namespace {

constexpr std::uint32_t kIn = 0;
constexpr std::uint32_t kOut = 1;
constexpr std::uint32_t kGetId = 8;
constexpr std::uint32_t kDiscard = 11;
constexpr std::uint32_t kWriteZeroes = 13;
constexpr int kOk = 0;
constexpr int kIoErr = 1;
constexpr int kUnsupp = 2;
constexpr std::uint64_t kMiB = 1 << 20;

class BlockDeviceTest : public ::testing::TestWithParam<Setting> {
 protected:
  bool make(const TestDisk::Options& options = {}) {
    disk_.emplace(GetParam(), options);
    return disk_->isThere();
  }
  std::optional<TestDisk> disk_;
};

#define MAKE_OR_SKIP(...)                                           \
  if (!make(__VA_ARGS__)) {                                         \
    GTEST_SKIP() << "this system has no such files or no io_uring"; \
  }

TEST_P(BlockDeviceTest, writtenData_isInTheFileAndReadBack) {
  MAKE_OR_SKIP();
  const Data data = pattern(128 * 1024, 1);
  EXPECT_EQ(disk_->write(24, data), kOk);
  EXPECT_EQ(disk_->content(24 * 512, data.size()), data);
  const Answer answer = disk_->read(24, data.size());
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.used, data.size() + 1);
  EXPECT_EQ(answer.data, data);
  EXPECT_EQ(disk_->read(8192, 4096).data, Data(4096)) << "a hole";
}

TEST_P(BlockDeviceTest, writeInManySegments_isOneWrite) {
  MAKE_OR_SKIP();
  // 100 segments are more than a request has room for without borrowing.
  const Data data = pattern(100 * 512, 2);
  EXPECT_EQ(disk_->ask(kOut, 8, data, 0, 512).status, kOk);
  EXPECT_EQ(disk_->content(8 * 512, data.size()), data);
  EXPECT_EQ(disk_->ask(kIn, 8, {}, data.size(), 512).data, data);
}

TEST_P(BlockDeviceTest, anyOffsetAndAddress_isServed) {
  MAKE_OR_SKIP();
  Data model(kMiB);
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t sector = random() % 1024;
    const std::size_t bytes = 512 * (1 + random() % 64);
    const std::size_t segment = 1 + random() % 5000;
    const std::size_t misplaced = random() % 3 == 0 ? 0 : random() % 4096;
    const bool isUsable = bytes / segment < 100 && sector * 512 + bytes <= model.size();
    if (!isUsable) {
      continue;
    }
    if (random() % 2 == 0) {
      const Data data = pattern(bytes, static_cast<std::uint32_t>(i));
      ASSERT_EQ(disk_->ask(kOut, sector, data, 0, segment, misplaced).status, kOk);
      std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(sector * 512));
    } else {
      const Answer answer = disk_->ask(kIn, sector, {}, bytes, segment, misplaced);
      ASSERT_EQ(answer.status, kOk);
      ASSERT_TRUE(std::equal(answer.data.begin(), answer.data.end(),
                             model.begin() + static_cast<std::ptrdiff_t>(sector * 512)));
    }
  }
  EXPECT_EQ(disk_->content(0, model.size()), model);
}

TEST_P(BlockDeviceTest, manyRequestsAtOnce_areAllAnswered) {
  MAKE_OR_SKIP();
  const Data data = pattern(8 * kMiB, 3);
  for (std::size_t at = 0; at < data.size(); at += kMiB / 2) {
    const auto begin = data.begin() + static_cast<std::ptrdiff_t>(at);
    ASSERT_EQ(disk_->write(at / 512, Data(begin, begin + kMiB / 2)), kOk);
  }
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::uint64_t> sectors;
    for (std::size_t slot = 0; slot < 40; ++slot) {
      sectors.push_back(8 * (random() % 1900));
      disk_->offer(0, slot, kIn, sectors[slot], {}, 4096);
    }
    disk_->driver().queue(0).notify();
    for (std::size_t slot = 0; slot < sectors.size(); ++slot) {
      disk_->driver().queue(0).nextUsed(disk_->driver().interrupts());
    }
    for (std::size_t slot = 0; slot < sectors.size(); ++slot) {
      ASSERT_EQ(disk_->statusOf(slot), kOk);
      const auto got = disk_->dataOf(slot, 4096);
      ASSERT_EQ(std::memcmp(got.data(), data.data() + sectors[slot] * 512, 4096), 0);
    }
  }
}

TEST_P(BlockDeviceTest, serial_isTwentyBytes) {
  MAKE_OR_SKIP();
  const Answer whole = disk_->ask(kGetId, 0, {}, 20);
  EXPECT_EQ(whole.status, kOk);
  EXPECT_EQ(whole.used, 21u);
  EXPECT_EQ(std::string(whole.data.begin(), whole.data.end()), "serial-of-20-bytes-x");
  disk_.reset();
  TestDisk::Options options;
  options.serial = "abc";
  ASSERT_TRUE(make(options));
  EXPECT_EQ(disk_->ask(kGetId, 0, {}, 20).data,
            (Data{'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  const Answer room = disk_->ask(kGetId, 0, {}, 64);
  EXPECT_EQ(room.used, 20u) << "the status does not follow what was written";
  EXPECT_EQ(room.data[2], 'c');
}

TEST_P(BlockDeviceTest, wrongRequests_getTheStatusOfTheSpecification) {
  MAKE_OR_SKIP();
  const std::uint64_t end = 8 * kMiB / 512;
  EXPECT_EQ(disk_->read(end - 1, 1024).status, kIoErr);
  EXPECT_EQ(disk_->write(end, Data(512)), kIoErr);
  EXPECT_EQ(disk_->write(~std::uint64_t{0}, Data(512)), kIoErr);
  EXPECT_EQ(disk_->read(0, 500).status, kIoErr);
  EXPECT_EQ(disk_->ask(77, 0, {}, 512).status, kUnsupp);
  EXPECT_EQ(disk_->change(kDiscard, {{0, 8, 1}}), kUnsupp);
  EXPECT_EQ(disk_->change(kWriteZeroes, {{end - 4, 8, 0}}), kIoErr);
  EXPECT_EQ(disk_->write(end - 1, pattern(512, 9)), kOk);
  EXPECT_TRUE(disk_->log().empty()) << disk_->log()[0];
}

TEST_P(BlockDeviceTest, readOnlyDisk_isNeverWritten) {
  Fd file = makeFile(GetParam().place, kMiB);
  if (!file) {
    GTEST_SKIP() << "this system has no such files";
  }
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  const int direct = GetParam().place == Place::kDiskPastCache ? O_DIRECT : 0;
  TestDisk::Options options;
  options.readOnly = true;
  disk_.emplace(GetParam(), options, Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | direct)));
  if (!disk_->isThere()) {
    GTEST_SKIP() << "no io_uring";
  }
  EXPECT_NE(disk_->device().features() & kFeatureRo, 0u);
  EXPECT_EQ(disk_->device().features() & (kFeatureDiscard | kFeatureWriteZeroes), 0u);
  EXPECT_EQ(disk_->write(0, pattern(512, 1)), kIoErr);
  EXPECT_EQ(disk_->change(kDiscard, {{0, 8, 0}}), kUnsupp);
  EXPECT_EQ(disk_->read(0, 4096).data, Data(4096));
  EXPECT_EQ(disk_->flush(), kOk);
}

TEST_P(BlockDeviceTest, discard_givesSpaceBack) {
  MAKE_OR_SKIP();
  ASSERT_EQ(disk_->write(0, pattern(512 * 1024, 1)), kOk);
  ASSERT_EQ(disk_->write(1024, pattern(512 * 1024, 2)), kOk);
  ASSERT_EQ(disk_->flush(), kOk);
  const std::uint64_t before = disk_->allocatedBytes();
  EXPECT_GE(before, kMiB);
  EXPECT_EQ(disk_->change(kDiscard, {{0, 512, 0}, {1024, 256, 0}}), kOk);
  EXPECT_LE(disk_->allocatedBytes(), before - 384 * 1024);
  EXPECT_EQ(disk_->read(0, 4096).data, Data(4096));
  const Data first = pattern(512 * 1024, 1);
  EXPECT_EQ(disk_->content(512 * 512, 4096), Data(first.begin() + 512 * 512, first.begin() + 512 * 512 + 4096))
      << "what lies behind it";
  struct stat status {};
  ASSERT_EQ(::fstat(disk_->file(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(8 * kMiB));
}

TEST_P(BlockDeviceTest, zeroes_areWrittenWithAndWithoutKeepingTheSpace) {
  MAKE_OR_SKIP();
  const Data data = pattern(512 * 1024, 1);
  ASSERT_EQ(disk_->write(0, data), kOk);
  ASSERT_EQ(disk_->flush(), kOk);
  const std::uint64_t before = disk_->allocatedBytes();
  EXPECT_EQ(disk_->change(kWriteZeroes, {{3, 250, 0}}), kOk);  // no whole blocks at either end
  EXPECT_GE(disk_->allocatedBytes(), before) << "without unmap nothing is given back";
  Data expected = data;
  std::fill_n(expected.begin() + 3 * 512, 250 * 512, std::uint8_t{0});
  EXPECT_EQ(disk_->content(0, data.size()), expected);
  EXPECT_EQ(disk_->change(kWriteZeroes, {{512, 512, 1}}), kOk);
  std::fill_n(expected.begin() + 512 * 512, 512 * 512, std::uint8_t{0});
  EXPECT_EQ(disk_->content(0, data.size()), expected);
  EXPECT_LT(disk_->allocatedBytes(), before);
}

// On file systems that allocate late, what is not allocated yet cannot be durable.
enum class Durable { kYes, kNo, kUnknown };
Durable isDurable(int file, std::uint64_t offset) {
  std::array<std::uint64_t, (sizeof(fiemap) + sizeof(fiemap_extent)) / 8> memory{};
  auto& map = *reinterpret_cast<fiemap*>(memory.data());
  map.fm_start = offset;
  map.fm_length = 4096;
  map.fm_extent_count = 1;
  if (::ioctl(file, FS_IOC_FIEMAP, &map) != 0 || map.fm_mapped_extents != 1) {
    return Durable::kUnknown;
  }
  return (map.fm_extents[0].fe_flags & FIEMAP_EXTENT_DELALLOC) != 0 ? Durable::kNo : Durable::kYes;
}

TEST_P(BlockDeviceTest, flush_makesWritesBeforeItDurable) {
  MAKE_OR_SKIP();
  ASSERT_EQ(disk_->write(0, pattern(4096, 1)), kOk);
  if (isDurable(disk_->file(), 0) != Durable::kNo) {
    GTEST_SKIP() << "this file system does not tell";
  }
  EXPECT_EQ(disk_->flush(), kOk);
  EXPECT_EQ(isDurable(disk_->file(), 0), Durable::kYes);
}

TEST_P(BlockDeviceTest, flushOfAnUnsafeDisk_doesNothing) {
  TestDisk::Options options;
  options.cache = Cache::kUnsafe;
  if (GetParam().place == Place::kDiskPastCache) {
    GTEST_SKIP() << "a cache mode of its own";
  }
  MAKE_OR_SKIP(options);
  disk_->setWriteback(false);
  ASSERT_EQ(disk_->write(0, pattern(4096, 1)), kOk);
  EXPECT_EQ(disk_->flush(), kOk);
  const Durable durable = isDurable(disk_->file(), 0);
  if (durable == Durable::kUnknown) {
    GTEST_SKIP() << "this file system does not tell";
  }
  EXPECT_EQ(durable, Durable::kNo);
}

TEST_P(BlockDeviceTest, withWritebackOff_eachWriteIsDurable) {
  MAKE_OR_SKIP();
  ASSERT_EQ(disk_->write(0, pattern(4096, 1)), kOk);
  if (isDurable(disk_->file(), 0) != Durable::kNo) {
    GTEST_SKIP() << "this file system does not tell";
  }
  disk_->setWriteback(false);
  ASSERT_EQ(disk_->write(256, pattern(4096, 2)), kOk);
  EXPECT_EQ(isDurable(disk_->file(), 256 * 512), Durable::kYes);
  disk_->setWriteback(true);
  ASSERT_EQ(disk_->write(512, pattern(4096, 3)), kOk);
  EXPECT_EQ(isDurable(disk_->file(), 512 * 512), Durable::kNo);
}

// 5.2.6.2, case 1.
TEST_P(BlockDeviceTest, driverThatCannotFlush_getsDurableWrites) {
  TestDisk::Options options;
  options.without = kFeatureFlush | kFeatureConfigWce;
  MAKE_OR_SKIP(options);
  ASSERT_EQ(disk_->write(0, pattern(4096, 1)), kOk);
  const Durable durable = isDurable(disk_->file(), 0);
  if (durable == Durable::kUnknown) {
    GTEST_SKIP() << "this file system does not tell";
  }
  EXPECT_EQ(durable, Durable::kYes);
}

// 5.2.5.2.
TEST_P(BlockDeviceTest, switchWithoutFlush_beginsWithWritebackOff) {
  TestDisk::Options options;
  options.without = kFeatureFlush;
  MAKE_OR_SKIP(options);
  std::uint8_t writeback = 7;
  disk_->device().readConfig(32, {&writeback, 1});
  EXPECT_EQ(writeback, 0);
  disk_->stop();
  disk_->device().readConfig(32, {&writeback, 1});
  EXPECT_EQ(writeback, 1) << "after a reset";
  disk_->start();
}

TEST_P(BlockDeviceTest, configuration_isThatOfTheFile) {
  TestDisk::Options options;
  options.bytes = kMiB + 700;
  options.queues = 3;
  MAKE_OR_SKIP(options);
  Config config;
  disk_->device().readConfig(0, {reinterpret_cast<std::uint8_t*>(&config), sizeof config});
  EXPECT_EQ(config.capacity, GetParam().place == Place::kDiskPastCache && config.blkSize > 512 ? 2048u : 2049u);
  EXPECT_EQ(config.segMax, 254u);
  EXPECT_EQ(config.numQueues, 3u);
  EXPECT_EQ(config.maxDiscardSeg, 16u);
  EXPECT_EQ(config.maxWriteZeroesSeg, 1u);
  EXPECT_EQ(config.writeback, 1u);
  EXPECT_EQ(std::uint32_t{config.minIoSize}, 1u << config.physicalBlockExp);
  EXPECT_EQ(disk_->device().queueSizes().size(), 3u);
  std::uint8_t beyond[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  disk_->device().readConfig(1000, beyond);
  EXPECT_EQ(beyond[7], 0);
}

TEST_P(BlockDeviceTest, fileThatBecomesShorter_givesErrorsThatTheLogTells) {
  MAKE_OR_SKIP();
  ASSERT_EQ(::ftruncate(disk_->file(), 4096), 0);
  EXPECT_EQ(disk_->read(0, 4096).status, kOk);
  EXPECT_EQ(disk_->read(0, 8192).status, kIoErr);
  ASSERT_EQ(disk_->log().size(), 1u);
  EXPECT_EQ(disk_->log()[0], "disk: reading 4096 bytes at 4096: Input/output error");
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(disk_->read(64, 512).status, kIoErr);
  }
  EXPECT_EQ(disk_->log().size(), 8u + 3u) << "the first ones, then the 16th, 32nd, 64th";
  EXPECT_EQ(disk_->write(64, pattern(4096, 5)), kOk) << "the VM goes on";
  EXPECT_EQ(disk_->read(64, 4096).data, pattern(4096, 5));
}

INSTANTIATE_TEST_SUITE_P(Block, BlockDeviceTest,
                         ::testing::Values(Setting{How::kRing, Place::kDisk}, Setting{How::kCalls, Place::kDisk},
                                           Setting{How::kRing, Place::kMemory}, Setting{How::kCalls, Place::kMemory},
                                           Setting{How::kRing, Place::kDiskPastCache},
                                           Setting{How::kCalls, Place::kDiskPastCache}),
                         [](const auto& info) { return nameOf(info.param); });

TEST(BlockDeviceOptions, whatDoesNotFit_isRefusedByName) {
  const auto refusal = [](auto change) -> std::string {
    BlockOptions options;
    options.name = "blk7";
    options.file = makeFile(Place::kMemory, kMiB);
    change(options);
    try {
      const BlockDevice device(std::move(options));
    } catch (const Error& error) {
      return error.message();
    }
    return "taken";
  };
  EXPECT_EQ(refusal([](auto&) {}), "taken");
  for (const std::string& message : {
           refusal([](auto& o) { o.queues = 0; }),
           refusal([](auto& o) { o.serial = std::string(21, 'x'); }),
           refusal([](auto& o) { o.cache = Cache::kDirect; }),
           refusal([](auto& o) { o.file = makeFile(Place::kMemory, 511); }),
           refusal([](auto& o) { o.file.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }),
           refusal([](auto& o) { o.file.reset(); }),
       }) {
    EXPECT_EQ(message.rfind("blk7: ", 0), 0u) << message;
  }
}

// A write that fails: the page of a sealed file cannot be changed.
TEST(BlockDeviceErrors, failingWrites_areErrorsAndNotTheEnd) {
  for (const How how : {How::kRing, How::kCalls}) {
    Fd file(::memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kMiB)), 0);
    TestDisk disk({how, Place::kMemory}, {}, file.duplicate());
    if (!disk.isThere()) {
      continue;
    }
    ASSERT_EQ(disk.write(0, pattern(4096, 1)), kOk);
    ASSERT_EQ(::fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
    EXPECT_EQ(disk.write(0, pattern(4096, 2)), kIoErr);
    EXPECT_EQ(disk.change(kWriteZeroes, {{0, 8, 1}}), kIoErr);
    EXPECT_EQ(disk.change(kDiscard, {{0, 8, 0}}), kIoErr);
    EXPECT_EQ(disk.read(0, 4096).data, pattern(4096, 1));
    EXPECT_EQ(disk.log().size(), 3u);
  }
}

// In a mount namespace of the test's own.
TEST(BlockDeviceErrors, fullFileSystem_isAnErrorOfTheGuests_andTold) {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    GTEST_SKIP() << "only root may mount";
  }
  for (const How how : {How::kRing, How::kCalls}) {
    // One for each: what a ring held is given back some time after its end.
    ASSERT_EQ(::mount("tmpfs", "/mnt", "tmpfs", 0, "size=1m"), 0);
    Fd file(::open("/mnt", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(file.get(), 4 * static_cast<off_t>(kMiB)), 0);
    TestDisk disk({how, Place::kMemory}, {}, std::move(file));
    if (!disk.isThere()) {
      ::umount2("/mnt", MNT_DETACH);
      continue;
    }
    EXPECT_EQ(disk.write(0, pattern(256 * 1024, 1)), kOk);
    EXPECT_EQ(disk.timesFull(), 0u);
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(disk.write(2048, pattern(kMiB / 2, 2)) == kOk && disk.write(4096, pattern(kMiB / 2, 3)) == kOk, false);
    }
    EXPECT_EQ(disk.timesFull(), 7u) << "the 1st, 2nd, 4th to 64th";
    EXPECT_EQ(disk.change(kWriteZeroes, {{4096, 1024, 0}}), kIoErr);
    EXPECT_EQ(disk.read(0, 4096).status, kOk);
    EXPECT_EQ(disk.write(0, pattern(4096, 4)), kOk) << "where it has room already";
    ::umount2("/mnt", MNT_DETACH);
  }
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::block::test
