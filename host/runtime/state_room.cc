#include "host/runtime/state_room.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include "host/config/json.h"
#include "host/config/vm_config.h"
#include "host/runtime/files.h"
#include "host/runtime/record.h"

namespace vmmhost::runtime {
namespace {

constexpr char kLimitVariable[] = "VMMHOST_STATE_LIMIT";
constexpr std::uint64_t kUserBytes = std::uint64_t{16} << 30;
constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

std::uint64_t userBytes() {
  const char* value = std::getenv(kLimitVariable);
  return value == nullptr || *value == '\0' ? kUserBytes : config::parseByteSize(kLimitVariable, value);
}

StateBounds boundsOf(std::uint32_t consoles, Kind kind) {
  StateBounds bounds;
  bounds.consoleLogs = kind == Kind::kVm ? 2 * kConsoleFileBytes * std::max(consoles, 1U) : 0;
  bounds.vmLog = 2 * kLogFileBytes;
  bounds.exitRecord = kExitRecordBytes;
  bounds.vm = bounds.consoleLogs + bounds.vmLog + bounds.exitRecord;
  return bounds;
}

// Of what runs, by its record; nothing if it does not run. One of before has no number there.
std::optional<std::uint32_t> consolesOf(const Directories& directories, const std::string& entry) {
  const Fd folder(::openat(directories.runtimeFd(), entry.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) {
    return std::nullopt;
  }
  const auto text = readSmallFile(folder.get(), kRecordFile, kMaxRecordBytes);
  const auto record = text ? parseRecord(*text) : std::nullopt;
  return record ? std::min(record->consoles, config::kMaxConsoles) : 0U;
}

// What the state of one VM or network takes or, while it runs, may come to take. Blocks count, not lengths.
std::uint64_t heldBy(const Directories& directories, const std::string& entry, Kind kind) {
  const Fd folder(::openat(directories.stateFd(), entry.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) {
    return 0;
  }
  std::uint64_t bytes = 0;
  std::uint32_t consoles = 0;
  for (const std::string& file : folderEntries(folder.get())) {
    struct stat status = {};
    if (::fstatat(folder.get(), file.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
    }
    const std::string_view view = file;
    consoles += view.starts_with("console.") && view.ends_with(".log") ? 1 : 0;
  }
  // Its logs come to be one after the other.
  const auto planned = consolesOf(directories, entry);
  return planned ? std::max(bytes, boundsOf(std::max(consoles, *planned), kind).vm) : bytes;
}

}  // namespace

StateBounds stateBounds(std::uint32_t consoles, Kind kind) {
  StateBounds bounds = boundsOf(consoles, kind);
  bounds.user = userBytes();
  return bounds;
}

void requireStateRoom(const Directories& directories, const EntryName& name, const StateBounds& bounds) {
  const std::vector<std::string> entries = folderEntries(directories.stateFd(), 65536);
  // None holds more than this: few need not be looked at one by one.
  if ((entries.size() + 1) * boundsOf(config::kMaxConsoles, Kind::kVm).vm <= bounds.user) {
    return;
  }
  std::uint64_t held = 0;
  std::uint64_t heldByNetworks = 0;
  for (const std::string& other : entries) {
    const bool isNetwork = entryOfFolder(Kind::kNetwork, other).has_value();
    const std::uint64_t bytes =
        other == name.folder() ? 0 : heldBy(directories, other, isNetwork ? Kind::kNetwork : Kind::kVm);
    held += bytes;
    heldByNetworks += isNetwork ? bytes : 0;
  }
  if (held + bounds.vm > bounds.user) {
    throw Error(
        ErrorCode::kResourceExhausted,
        "the state folder " + directories.paths().state + " has " + std::to_string(held / kMebibyte) + " MiB of VMs " +
            (heldByNetworks > 0 ? "and networks " : "") + "that run or have ended, and this one may add " +
            std::to_string(bounds.vm / kMebibyte) + " MiB: more than " + std::to_string(bounds.user / kMebibyte) +
            " MiB",
        std::string("`vmmhost ps -a` shows what has ended, `vmmhost rm NAME` removes it; ") +
            (heldByNetworks > 0 ? "`vmmhost network ls` and `vmmhost network rm NAME` those of networks; " : "") +
            kLimitVariable + " sets another bound");
  }
}

}  // namespace vmmhost::runtime
