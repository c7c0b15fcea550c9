#include "host/vm/disk_plan.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "host/vm/qcow2_header.h"
#include "vmmhost/error.h"
#include "vmmhost/mailbox.h"

namespace vmmhost::vm {
namespace {

std::uint64_t lengthOf(const Fd& file) {
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) {
    throw systemError("looking at a disk", errno);
  }
  return static_cast<std::uint64_t>(info.st_size);
}

Qcow2Header readHeader(const Fd& file) {
  // Aligned and long enough for a file that is opened past the page cache.
  alignas(4096) std::array<std::byte, 4096> block{};
  const ssize_t got = ::pread(file.get(), block.data(), block.size(), 0);
  if (got < 0) {
    throw systemError("reading the header of the image", errno);
  }
  return parseQcow2Header(
      std::span(block).first(std::min<std::size_t>(static_cast<std::size_t>(got), kQcow2HeaderBytes)));
}

// What the image claims to be now; nothing where it is none any more.
std::optional<std::uint64_t> virtualBytesOf(const Fd& file) noexcept {
  try {
    return readHeader(file).virtualBytes;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

void DiskPlans::add(std::string subject, Fd file, schema::Disk::Format format) {
  Plan plan{std::move(subject), std::move(file), format, 0, 0};
  plan.bytes = lengthOf(plan.file);
  if (format == schema::Disk::Format::QCOW2) {
    const Qcow2Header header = readHeader(plan.file);
    plan.bytes = plannedBytes(header, plan.bytes);
    plan.virtualBytes = header.virtualBytes;
  }
  largest_ = std::max(largest_, plan.bytes);
  plans_.push_back(std::move(plan));
}

bool DiskPlans::needSettling() const noexcept {
  return std::any_of(plans_.begin(), plans_.end(), [](const Plan& plan) {
    struct stat info = {};
    const bool isLonger = ::fstat(plan.file.get(), &info) == 0 && static_cast<std::uint64_t>(info.st_size) > plan.bytes;
    return isLonger ||
           (plan.format == schema::Disk::Format::QCOW2 && virtualBytesOf(plan.file).value_or(0) > plan.virtualBytes);
  });
}

std::vector<std::string> DiskPlans::settle() const {
  std::vector<std::string> told;
  for (const Plan& plan : plans_) {
    const std::uint64_t length = lengthOf(plan.file);
    if (length > plan.bytes) {
      std::string text = plan.subject + ": " + std::to_string(length) + " bytes long at the VM's end, planned were " +
                         std::to_string(plan.bytes);
      if (plan.format != schema::Disk::Format::RAW) {
        text += "; an image is left as it is";
      } else if (::ftruncate(plan.file.get(), static_cast<off_t>(plan.bytes)) == 0) {
        text += ": cut back";
      } else {
        text += "; " + systemError("cutting it back", errno).message();
      }
      told.push_back(std::move(text));
    }
    if (plan.format == schema::Disk::Format::QCOW2) {
      const std::uint64_t claimed = virtualBytesOf(plan.file).value_or(0);
      if (claimed > plan.virtualBytes) {
        told.push_back(plan.subject + ": the image claims to be a disk of " + std::to_string(claimed) +
                       " bytes now, it was one of " + std::to_string(plan.virtualBytes));
      }
    }
  }
  return told;
}

namespace {

class Settler {
 public:
  Settler(kj::UnixEventPort& port, DiskPlans plans) : mailbox_(port), plans_(std::move(plans)) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    done_ = kj::mv(paf.fulfiller);
    promise_ = kj::mv(paf.promise);
    thread_ = std::thread([this]() {
      try {
        told_ = plans_.settle();
      } catch (const std::exception& error) {
        told_ = {std::string("the disks could not be looked at: ") + error.what()};
      }
      mailbox_.post([this]() { done_->fulfill(); });
    });
  }
  ~Settler() { thread_.join(); }
  Settler(const Settler&) = delete;
  Settler& operator=(const Settler&) = delete;

  kj::Promise<std::vector<std::string>> told() {
    return promise_.then([this]() { return std::move(told_); });
  }

 private:
  Mailbox mailbox_;
  const DiskPlans plans_;
  std::vector<std::string> told_;  // written by the thread before it posts
  kj::Own<kj::PromiseFulfiller<void>> done_;
  kj::Promise<void> promise_ = nullptr;
  std::thread thread_;
};

}  // namespace

kj::Promise<std::vector<std::string>> settleAside(kj::UnixEventPort& port, DiskPlans plans) {
  auto settler = kj::heap<Settler>(port, std::move(plans));
  auto told = settler->told();
  return told.attach(kj::mv(settler));
}

}  // namespace vmmhost::vm
