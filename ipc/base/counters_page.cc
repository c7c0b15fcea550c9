#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <optional>

#include "vmmhost/counters.h"
#include "vmmhost/error.h"
#include "vmmhost/memory_file.h"

namespace vmmhost::counters {
namespace {

namespace bip = boost::interprocess;

using CellValue = std::atomic<std::uint64_t>;
constexpr std::size_t kCells = static_cast<std::size_t>(Cell::kCount);
static_assert(CellValue::is_always_lock_free, "a lock would be in the hands of the worker");
static_assert(sizeof(CellValue) == 8 && kCells * sizeof(CellValue) <= kPageBytes);

constexpr std::array<std::string_view, kCells> kNames = {
    "vcpuExits",        "pioExits",          "mmioExits",   "haltExits", "consoleBytesOut", "consoleBytesIn",
    "unknownPortReads", "unknownPortWrites", "unknownMmio", "pauses",    "resets",          "logRecordsDropped",
};

// What boost::interprocess::mapped_region wants of a memory object.
class MappableDescriptor {
 public:
  MappableDescriptor(int fd, bip::mode_t mode) : fd_(fd), mode_(mode) {}
  bip::mapping_handle_t get_mapping_handle() const { return {fd_, false}; }
  bip::mode_t get_mode() const { return mode_; }

 private:
  int fd_;
  bip::mode_t mode_;
};

bip::mapped_region map(int fd, bip::mode_t mode) {
  try {
    return bip::mapped_region(MappableDescriptor(fd, mode), mode, 0, kPageBytes);
  } catch (const bip::interprocess_exception& error) {
    throw systemError("mapping the counters page", error.get_native_error());
  }
}

}  // namespace

std::string_view cellName(Cell cell) noexcept {
  const auto index = static_cast<std::size_t>(cell);
  return index < kCells ? kNames[index] : std::string_view("unknown");
}

struct HostPage::Impl {
  Fd memory = makeMemoryFile("vmmhost-counters", kPageBytes);
  // Sealed against shrinking before it is mapped: no access here can ever raise SIGBUS.
  bip::mapped_region region = map(memory.get(), bip::read_only);

  const CellValue* cells() const { return static_cast<const CellValue*>(region.get_address()); }
};

HostPage::HostPage() : impl_(std::make_unique<Impl>()) {
}
HostPage::~HostPage() = default;

int HostPage::descriptor() const noexcept {
  return impl_->memory.get();
}

std::uint64_t HostPage::read(Cell cell) const noexcept {
  const auto index = static_cast<std::size_t>(cell);
  return index < kCells ? impl_->cells()[index].load(std::memory_order_relaxed) : 0;
}

std::vector<std::pair<std::string_view, std::uint64_t>> HostPage::readAll() const {
  std::vector<std::pair<std::string_view, std::uint64_t>> values;
  for (std::size_t i = 0; i < kCells; ++i) {
    const auto cell = static_cast<Cell>(i);
    if (const std::uint64_t value = read(cell)) {  // once: it may change at any moment
      values.emplace_back(cellName(cell), value);
    }
  }
  return values;
}

struct WorkerPage::Impl {
  Fd memory;
  std::optional<bip::mapped_region> region;
  std::array<CellValue, kCells> own{};
  CellValue* cells = own.data();
};

WorkerPage::WorkerPage() : impl_(std::make_unique<Impl>()) {
}

WorkerPage::WorkerPage(Fd memfd) : impl_(std::make_unique<Impl>()) {
  struct stat status {};
  if (::fstat(memfd.get(), &status) != 0) {
    throw systemError("looking at the counters page", errno);
  }
  if (status.st_size != static_cast<off_t>(kPageBytes)) {
    throw Error(ErrorCode::kInvalidArgument, "the counters page has " + std::to_string(status.st_size) +
                                                 " bytes, expected " + std::to_string(kPageBytes));
  }
  impl_->memory = std::move(memfd);
  impl_->region.emplace(map(impl_->memory.get(), bip::read_write));
  impl_->cells = static_cast<CellValue*>(impl_->region->get_address());
}

WorkerPage::~WorkerPage() = default;

void WorkerPage::add(Cell cell, std::uint64_t amount) noexcept {
  const auto index = static_cast<std::size_t>(cell);
  if (index < kCells) {
    impl_->cells[index].fetch_add(amount, std::memory_order_relaxed);
  }
}

std::uint64_t WorkerPage::read(Cell cell) const noexcept {
  const auto index = static_cast<std::size_t>(cell);
  return index < kCells ? impl_->cells[index].load(std::memory_order_relaxed) : 0;
}

}  // namespace vmmhost::counters
