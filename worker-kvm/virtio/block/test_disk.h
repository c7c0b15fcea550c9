// A disk with a driver, for tests: real files, both engines.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "worker-kvm/virtio/block/block_device.h"
#include "worker-kvm/virtio/test_driver.h"

namespace vmmhost::kvm::virtio::block::test {

using Data = std::vector<std::uint8_t>;
using virtio::test::Driver;
using virtio::test::DriverQueue;

enum class Place { kMemory, kDisk, kDiskPastCache };
enum class How { kRing, kCalls };

struct Setting {
  How how = How::kRing;
  Place place = Place::kDisk;
};

inline std::string nameOf(const Setting& setting);
inline void PrintTo(const Setting& setting, std::ostream* out) {
  *out << nameOf(setting);
}
inline std::string nameOf(const Setting& setting) {
  const char* place = setting.place == Place::kMemory ? "tmpfs" : setting.place == Place::kDisk ? "disk" : "direct";
  return std::string(setting.how == How::kRing ? "ring_" : "calls_") + place;
}

// A sparse file without a name.
inline Fd makeFile(Place place, std::uint64_t bytes) {
  const std::string folder = place == Place::kMemory ? "/dev/shm" : std::filesystem::temp_directory_path().string();
  const int direct = place == Place::kDiskPastCache ? O_DIRECT : 0;
  Fd file(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | direct, 0600));
  if (file && ::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    file.reset();
  }
  return file;
}

inline Data pattern(std::size_t bytes, std::uint32_t seed) {
  Data data(bytes);
  std::uint32_t value = seed * 2654435761u + 1;
  for (std::uint8_t& byte : data) {
    value = value * 1664525u + 1013904223u;
    byte = static_cast<std::uint8_t>(value >> 24);
  }
  return data;
}

struct Answer {
  int status = -1;
  std::uint32_t used = 0;
  Data data;
};

class TestDisk {
 public:
  struct Options {
    std::uint64_t bytes = 8 << 20;
    std::uint16_t queues = 1;
    Cache cache = Cache::kWriteback;
    bool readOnly = false;
    std::string serial = "serial-of-20-bytes-x";
    std::uint64_t without = 0;  // features not to agree on
  };

  explicit TestDisk(const Setting& setting) : TestDisk(setting, Options()) {}
  TestDisk(const Setting& setting, const Options& options)
      : TestDisk(setting, options, makeFile(setting.place, options.bytes)) {}
  TestDisk(const Setting& setting, const Options& options, Fd file) : options_(options), driver_(options.queues) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!file) {
      return;
    }
    file_ = file.duplicate();
    BlockOptions made;
    made.name = "disk";
    made.file = std::move(file);
    made.readOnly = options.readOnly;
    made.serial = options.serial;
    made.cache = setting.place == Place::kDiskPastCache ? Cache::kDirect : options.cache;
    made.queues = options.queues;
    made.log = [this](const std::string& line) {
      const std::lock_guard lock(logMutex_);
      log_.push_back(line);
    };
    made.full = [this] { ++timesFull_; };
    for (unsigned i = 0; setting.how == How::kRing && i < options.queues; ++i) {
      made.rings.push_back(rings::make());
      isServed_ = isServed_ && made.rings.back().descriptor;
    }
    if (!isServed_) {
      return;
    }
    device_.emplace(std::move(made));
    device_->connect(driver_.interrupts());
    start();
  }

  // False: this system has no such files or rings.
  bool isThere() const { return device_.has_value(); }
  BlockDevice& device() { return *device_; }
  Driver& driver() { return driver_; }
  int file() const { return file_.get(); }
  void destroyDevice() { device_.reset(); }

  void start() { driver_.start(*device_, device_->features() & ~options_.without); }
  void stop() { driver_.stop(); }

  // Guest memory of one request under way: a MiB each, of those behind Driver::kData.
  static constexpr std::uint64_t kSlotBytes = 1 << 20;
  static constexpr std::size_t kSlots = 48;
  static std::uint64_t at(std::size_t slot) { return Driver::kData + slot * kSlotBytes; }

  // Makes a request available: header, data in segments of `segment` bytes, status. The head of its chain.
  std::uint16_t offer(std::size_t queue, std::size_t slot, std::uint32_t type, std::uint64_t sector,
                      std::span<const std::uint8_t> data, std::size_t room, std::size_t segment = 65536,
                      std::size_t misplaced = 0) {
    DriverQueue& q = driver_.queue(queue);
    const std::uint64_t header = at(slot);
    q.put<std::uint32_t>(header, type);
    q.put<std::uint32_t>(header + 4, 0);
    q.put<std::uint64_t>(header + 8, sector);
    q.put<std::uint8_t>(header + 16, 0xee);
    std::uint64_t address = header + 4096 + misplaced;
    if (!data.empty()) {
      std::memcpy(driver_.memory().require(address, data.size(), "test").data(), data.data(), data.size());
    }
    std::vector<virtio::test::Part> parts{{header, 16, false}};
    const bool isRead = data.empty();
    for (std::size_t left = isRead ? room : data.size(); left != 0;) {
      const auto bytes = static_cast<std::uint32_t>(std::min(left, segment));
      parts.push_back({address, bytes, isRead});
      address += bytes;
      left -= bytes;
    }
    parts.push_back({header + 16, 1, true});
    return q.offer(parts);
  }
  int statusOf(std::size_t slot) { return driver_.memory().require(at(slot) + 16, 1, "test")[0]; }
  memory::Bytes dataOf(std::size_t slot, std::size_t bytes, std::size_t misplaced = 0) {
    return driver_.memory().require(at(slot) + 4096 + misplaced, bytes, "test");
  }

  // One request, waited for.
  Answer ask(std::uint32_t type, std::uint64_t sector, const Data& data = {}, std::size_t room = 0,
             std::size_t segment = 65536, std::size_t misplaced = 0) {
    offer(0, 0, type, sector, data, room, segment, misplaced);
    driver_.queue(0).notify();
    const auto used = driver_.queue(0).nextUsed(driver_.interrupts());
    const auto got = dataOf(0, data.empty() ? room : 0, misplaced);
    return {statusOf(0), used.bytes, Data(got.begin(), got.end())};
  }
  Answer read(std::uint64_t sector, std::size_t bytes) { return ask(0, sector, {}, bytes); }
  int write(std::uint64_t sector, const Data& data) { return ask(1, sector, data).status; }
  int flush() { return ask(4, 0).status; }
  struct Part {
    std::uint64_t sector;
    std::uint32_t sectors;
    std::uint32_t flags;
  };
  int change(std::uint32_t type, const std::vector<Part>& parts) {
    Data list(parts.size() * kRangeBytes);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::memcpy(list.data() + i * kRangeBytes, &parts[i].sector, 8);
      std::memcpy(list.data() + i * kRangeBytes + 8, &parts[i].sectors, 4);
      std::memcpy(list.data() + i * kRangeBytes + 12, &parts[i].flags, 4);
    }
    return ask(type, 0, list).status;
  }

  void setWriteback(bool on) {
    const std::uint8_t value = on ? 1 : 0;
    device_->writeConfig(offsetof(Config, writeback), {&value, 1});
  }

  // The file as somebody else sees it.
  Data content(std::uint64_t offset, std::size_t bytes) const {
    const std::string path = "/proc/self/fd/" + std::to_string(file_.get());
    const Fd other(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Data data(bytes);
    EXPECT_EQ(::pread(other.get(), data.data(), bytes, static_cast<off_t>(offset)), static_cast<ssize_t>(bytes));
    return data;
  }
  std::uint64_t allocatedBytes() const {
    struct stat status {};
    EXPECT_EQ(::fstat(file_.get(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  unsigned timesFull() const { return timesFull_; }
  std::vector<std::string> log() {
    const std::lock_guard lock(logMutex_);
    return log_;
  }

 private:
  Options options_;
  bool isServed_ = true;
  std::atomic<unsigned> timesFull_ = 0;
  std::mutex logMutex_;
  std::vector<std::string> log_;
  Fd file_;
  Driver driver_;
  std::optional<BlockDevice> device_;
};

}  // namespace vmmhost::kvm::virtio::block::test
