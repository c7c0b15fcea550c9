#include "host/plugin/probe_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "host/base/build_info.h"
#include "vmmhost/plugin.h"

namespace vmmhost::plugin {
namespace {

std::string numbers(std::initializer_list<std::uint64_t> values) {
  std::string out;
  for (const std::uint64_t value : values) {
    out += std::to_string(value) + ' ';
  }
  return out;
}

std::string fileKey(const struct stat& status) {
  const auto time = [](const timespec& when) {
    return std::to_string(when.tv_sec) + '.' + std::to_string(when.tv_nsec) + ' ';
  };
  return numbers({status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid,
                  static_cast<std::uint64_t>(status.st_rdev), static_cast<std::uint64_t>(status.st_size)}) +
         time(status.st_mtim) + time(status.st_ctim);
}

std::string pathKey(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 ? fileKey(status) : "missing ";
}

std::string kvmKey() {
  struct stat status = {};
  if (::stat("/dev/kvm", &status) != 0) {
    return "no kvm ";
  }
  // Times of the device node change without meaning anything; rights to it may come from a group or an ACL.
  return numbers({status.st_rdev, status.st_mode, status.st_uid, status.st_gid,
                  ::faccessat(AT_FDCWD, "/dev/kvm", R_OK | W_OK, AT_EACCESS) == 0 ? 1u : 0u});
}

std::optional<std::string> readAll(int descriptor, std::size_t limit) {
  std::string bytes;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 || bytes.size() > limit) {
      return std::nullopt;
    }
    if (count == 0) {
      return bytes;
    }
    bytes.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

std::string bootId() {
  const Fd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  return (file ? readAll(file.get(), 64) : std::nullopt).value_or("unknown boot\n");
}

// What has to be the same for a result to count. `watched` are the paths that the result itself names.
std::string makeKey(const std::string& path, const struct stat& status, const std::vector<std::string>& watched) {
  std::string key = path + '\n' + fileKey(status) + '\n' + kvmKey() + '\n' + bootId() + std::string(kBuild) + ' ' +
                    std::to_string(VMMHOST_PLUGIN_ABI) + '\n';
  for (const std::string& other : watched) {
    key += other + '\n' + pathKey(other) + '\n';
  }
  return key;
}

// Tells a damaged file; nobody else can write the folder. FNV-1a.
std::uint64_t checksum(std::string_view text) {
  std::uint64_t sum = 0xcbf29ce484222325;
  for (const char byte : text) {
    sum = (sum ^ static_cast<std::uint8_t>(byte)) * 0x100000001b3;
  }
  return sum;
}

// A file is this line, the key, and the result as probe_result.h writes it.
struct Header {
  unsigned measured = 0;
  unsigned long long keyBytes = 0;
  unsigned long long sum = 0;
};
constexpr char kHeaderFormat[] = "vmmhost-probe-1 %u %llu %llx\n";
constexpr std::size_t kMaxFileBytes = 2 * kMaxProbeBytes;

std::string fileName(const std::string& name) {
  return "probe-" + name;
}

Fd openFolder(const std::string& path) {
  if (path.empty()) {
    return {};
  }
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  ::mkdir(path.c_str(), 0700);
  Fd folder(::open(path.c_str(), O_DIRECTORY | O_NOFOLLOW | O_RDONLY | O_CLOEXEC));
  struct stat status = {};
  if (!folder || ::fstat(folder.get(), &status) != 0 || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0) {
    return {};
  }
  return folder;
}

}  // namespace

ProbeCache::ProbeCache(const std::string& directory) : directory_(openFolder(directory)) {
}

std::optional<ProbeResult> ProbeCache::find(const std::string& name, const std::string& path, const struct stat& status,
                                            bool measure) const {
  if (!directory_) {
    return std::nullopt;
  }
  const Fd file(::openat(directory_.get(), fileName(name).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  const auto bytes = file ? readAll(file.get(), kMaxFileBytes) : std::nullopt;
  if (!bytes) {
    return std::nullopt;
  }
  const std::size_t line = bytes->find('\n');
  Header header;
  if (line == std::string::npos || line > 100 ||
      std::sscanf(bytes->substr(0, line + 1).c_str(), kHeaderFormat, &header.measured, &header.keyBytes, &header.sum) !=
          3) {
    return std::nullopt;
  }
  const std::string_view rest = std::string_view(*bytes).substr(line + 1);
  if (header.keyBytes > rest.size() || checksum(rest) != header.sum || (measure && header.measured == 0)) {
    return std::nullopt;
  }
  auto result = decodeProbeResult(rest.substr(header.keyBytes));
  if (!result || result->info.name != name ||
      makeKey(path, status, result->watchedPaths) != rest.substr(0, header.keyBytes)) {
    return std::nullopt;
  }
  return result;
}

void ProbeCache::store(const std::string& path, const struct stat& status, bool measured,
                       const ProbeResult& result) const {
  if (!directory_ || !result.info.usable || result.info.error) {
    return;
  }
  const std::string key = makeKey(path, status, result.watchedPaths);
  const std::string rest = key + encodeProbeResult(result);
  std::array<char, 100> line;
  std::snprintf(line.data(), line.size(), kHeaderFormat, measured ? 1u : 0u,
                static_cast<unsigned long long>(key.size()), static_cast<unsigned long long>(checksum(rest)));
  const std::string bytes = line.data() + rest;
  const std::string name = fileName(result.info.name);
  // A process that died here may have left its file; the number of a living one is its own.
  const std::string temporary = name + '.' + std::to_string(::getpid());
  ::unlinkat(directory_.get(), temporary.c_str(), 0);
  const Fd file(
      ::openat(directory_.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    return;
  }
  if (::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
      ::renameat(directory_.get(), temporary.c_str(), directory_.get(), name.c_str()) != 0) {
    ::unlinkat(directory_.get(), temporary.c_str(), 0);
  }
}

}  // namespace vmmhost::plugin
