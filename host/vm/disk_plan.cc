#include "host/vm/disk_plan.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "host/vm/aside.h"
#include "host/vm/qcow2_header.h"
#include "vmmhost/error.h"

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

struct Claim {
  std::uint64_t virtualBytes;
  std::uint64_t planned;  // of a file that has `today` bytes
};

// What the image claims to be now; nothing where it is none any more.
std::optional<Claim> claimOf(const Fd& file, std::uint64_t today) noexcept {
  try {
    const Qcow2Header header = readHeader(file);
    return Claim{header.virtualBytes, plannedBytes(header, today)};
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

void DiskPlans::add(std::string subject, Fd file, schema::Disk::Format format) {
  Plan plan{std::move(subject), std::move(file), format, 0, 0, 0};
  plan.startBytes = lengthOf(plan.file);
  plan.bytes = plan.startBytes;
  if (format == schema::Disk::Format::QCOW2) {
    const Qcow2Header header = readHeader(plan.file);
    plan.bytes = plannedBytes(header, plan.startBytes);
    plan.virtualBytes = header.virtualBytes;
  }
  largest_ = std::max(largest_, plan.bytes);
  plans_.push_back(std::move(plan));
}

bool DiskPlans::needSettling() const noexcept {
  return std::any_of(plans_.begin(), plans_.end(), [](const Plan& plan) {
    struct stat info = {};
    if (::fstat(plan.file.get(), &info) != 0 || static_cast<std::uint64_t>(info.st_size) > plan.bytes) {
      return true;
    }
    const auto claim = plan.format == schema::Disk::Format::QCOW2 ? claimOf(plan.file, plan.startBytes) : std::nullopt;
    return claim && (claim->virtualBytes > plan.virtualBytes || claim->planned > plan.bytes);
  });
}

std::vector<std::string> DiskPlans::settle() const {
  std::vector<std::string> told;
  for (const Plan& plan : plans_) {
    try {
      settle(plan, told);
    } catch (const std::exception& error) {
      told.push_back(plan.subject + ": at the VM's end, " + error.what());
    }
  }
  return told;
}

void DiskPlans::settle(const Plan& plan, std::vector<std::string>& told) {
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
  if (plan.format != schema::Disk::Format::QCOW2) {
    return;
  }
  const auto claim = claimOf(plan.file, plan.startBytes);
  if (claim && claim->virtualBytes > plan.virtualBytes) {
    told.push_back(plan.subject + ": the image claims to be a disk of " + std::to_string(claim->virtualBytes) +
                   " bytes now, it was one of " + std::to_string(plan.virtualBytes));
  } else if (claim && claim->planned > plan.bytes) {
    // Snapshots, bitmaps, or the mark that its counts may be wrong.
    told.push_back(plan.subject + ": the image's header now plans " + std::to_string(claim->planned) +
                   " bytes, it was " + std::to_string(plan.bytes) + "; `qemu-img info` and `qemu-img check` tell why");
  }
}

kj::Promise<std::vector<std::string>> settleAside(kj::UnixEventPort& port, DiskPlans plans) {
  return runAside<std::vector<std::string>>(
      port, [shared = std::make_shared<const DiskPlans>(std::move(plans))]() { return shared->settle(); });
}

}  // namespace vmmhost::vm
