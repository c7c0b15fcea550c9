// Sources: elf(5), ld.so(8); the cache is laid out as glibc's sysdeps/generic/dl-cache.h says.
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <optional>
#include <string_view>

#include "ipc/jail/spawn/libraries.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::spawn {
namespace {

constexpr std::size_t kMaxHeaders = 128;
constexpr std::size_t kMaxDynamic = 4096;
constexpr std::size_t kMaxText = 4096;
constexpr std::size_t kMaxFiles = 256;
constexpr std::size_t kMaxCacheBytes = std::size_t{16} << 20;
constexpr char kCache[] = "/etc/ld.so.cache";

bool readAt(int file, std::uint64_t offset, void* to, std::size_t bytes) {
  return offset <= INT64_MAX && ::pread(file, to, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
}

// Up to the zero byte; empty: there is none, or the file ends.
std::string textAt(int file, std::uint64_t offset) {
  std::array<char, kMaxText> text{};
  const ssize_t got = offset <= INT64_MAX ? ::pread(file, text.data(), text.size(), static_cast<off_t>(offset)) : -1;
  const std::size_t length = ::strnlen(text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return got > 0 && length < static_cast<std::size_t>(got) ? std::string(text.data(), length) : std::string();
}

struct Dynamic {
  std::string loader;
  std::vector<std::string> needed;
  std::vector<std::string> folders;  // DT_RPATH and DT_RUNPATH
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// Nothing: not an ELF file for this machine.
std::optional<Dynamic> read(int file) {
  ElfW(Ehdr) own;
  const Fd self(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  ElfW(Ehdr) header;
  if (!readAt(file, 0, &header, sizeof header) || !readAt(self.get(), 0, &own, sizeof own) ||
      std::memcmp(header.e_ident, own.e_ident, EI_DATA + 1) != 0 || header.e_machine != own.e_machine ||
      header.e_phentsize != sizeof(ElfW(Phdr)) || header.e_phnum > kMaxHeaders) {
    return std::nullopt;
  }
  std::vector<ElfW(Phdr)> programs(header.e_phnum);
  if (!readAt(file, header.e_phoff, programs.data(), programs.size() * sizeof(ElfW(Phdr)))) {
    return std::nullopt;
  }
  Dynamic found;
  std::vector<ElfW(Dyn)> entries;
  for (const auto& program : programs) {
    if (program.p_type == PT_INTERP) {
      found.loader = textAt(file, program.p_offset);
    } else if (program.p_type == PT_DYNAMIC) {
      entries.resize(std::min<std::size_t>(program.p_filesz / sizeof(ElfW(Dyn)), kMaxDynamic));
      if (!readAt(file, program.p_offset, entries.data(), entries.size() * sizeof(ElfW(Dyn)))) {
        return std::nullopt;
      }
    }
  }
  entries.erase(std::find_if(entries.begin(), entries.end(), [](const auto& one) { return one.d_tag == DT_NULL; }),
                entries.end());
  std::optional<std::uint64_t> texts;
  for (const auto& entry : entries) {
    for (const auto& program : programs) {
      if (entry.d_tag == DT_STRTAB && program.p_type == PT_LOAD && entry.d_un.d_ptr >= program.p_vaddr &&
          entry.d_un.d_ptr - program.p_vaddr < program.p_filesz) {
        texts = program.p_offset + (entry.d_un.d_ptr - program.p_vaddr);
      }
    }
  }
  for (const auto& entry : entries) {
    if (texts && entry.d_tag == DT_NEEDED) {
      found.needed.push_back(textAt(file, *texts + entry.d_un.d_val));
    } else if (texts && (entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH)) {
      found.folders = split(textAt(file, *texts + entry.d_un.d_val), ':');
    }
  }
  return found;
}

class Cache {
 public:
  Cache() {
    const Fd file(::open(kCache, O_RDONLY | O_CLOEXEC));
    struct stat status = {};
    if (!file || ::fstat(file.get(), &status) != 0 || static_cast<std::uint64_t>(status.st_size) > kMaxCacheBytes) {
      return;
    }
    bytes_.resize(static_cast<std::size_t>(status.st_size));
    if (!readAt(file.get(), 0, bytes_.data(), bytes_.size())) {
      bytes_.clear();
    }
    // Behind one of an older layout, where there is one.
    constexpr std::string_view kMagic = "glibc-ld.so.cache1.1";
    const std::size_t begin = bytes_.find(kMagic);
    bytes_.erase(0, std::min(begin, bytes_.size()));
  }

  // All that the name stands for: of other machines, and for some of this machine's processors, as well.
  std::vector<std::string> pathsOf(const std::string& name) const {
    std::vector<std::string> paths;
    std::uint32_t count = 0;
    if (bytes_.size() < sizeof(Header)) {
      return paths;
    }
    std::memcpy(&count, bytes_.data() + offsetof(Header, count), sizeof count);
    for (std::uint64_t index = 0; index < count; ++index) {
      Entry entry;
      const std::uint64_t offset = sizeof(Header) + index * sizeof(Entry);
      if (offset + sizeof entry > bytes_.size()) {
        break;
      }
      std::memcpy(&entry, bytes_.data() + offset, sizeof entry);
      if (textOf(entry.name) == name) {
        paths.emplace_back(textOf(entry.path));
      }
    }
    return paths;
  }

 private:
  struct Header {
    char magic[20];
    std::uint32_t count;
    std::uint32_t others[6];
  };
  struct Entry {
    std::uint32_t flags;
    std::uint32_t name;  // offsets from the header's beginning
    std::uint32_t path;
    std::uint32_t others[3];
  };
  static_assert(sizeof(Header) == 48 && sizeof(Entry) == 24);

  std::string_view textOf(std::uint32_t offset) const {
    const std::size_t end = bytes_.find('\0', offset);
    return end == std::string::npos ? std::string_view() : std::string_view(bytes_).substr(offset, end - offset);
  }

  std::string bytes_;
};

// Where a jail may have anything from at all: nothing that holds sockets or data of others.
bool isForLibraries(const std::string& path) {
  constexpr std::string_view kFolders[] = {"/usr/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/opt/"};
  return path.find("/../") == std::string::npos &&
         std::any_of(std::begin(kFolders), std::end(kFolders), [&](auto folder) { return path.starts_with(folder); });
}

class Search {
 public:
  explicit Search(Dynamic executable) : executable_(std::move(executable)) {}

  Libraries run() {
    Libraries found;
    found.loader = executable_.loader;
    add(found.loader);
    wantAll(executable_, "");
    // More come to the end of the list while it is gone through.
    for (std::size_t index = 0; index < files_.size(); ++index) {
      const std::string path = files_[index];
      const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      if (const auto library = file ? read(file.get()) : std::nullopt) {
        wantAll(*library, path.substr(0, path.rfind('/')));
      }
    }
    found.files = std::move(files_);
    if (::access(kCache, R_OK) == 0) {
      found.files.emplace_back(kCache);
    }
    return found;
  }

 private:
  // `origin`: what $ORIGIN stands for. That of an executable which is started by a descriptor leads nowhere.
  void wantAll(const Dynamic& by, const std::string& origin) {
    for (const std::string& name : by.needed) {
      if (name.find('/') != std::string::npos) {
        add(name);
        continue;
      }
      std::vector<std::string> folders = by.folders;
      folders.insert(folders.end(), executable_.folders.begin(), executable_.folders.end());
      for (std::string folder : folders) {
        for (const std::string_view word : {"$ORIGIN", "${ORIGIN}"}) {
          if (const std::size_t at = folder.find(word); at != std::string::npos && !origin.empty()) {
            folder.replace(at, word.size(), origin);
          }
        }
        add(folder + '/' + name);
      }
      for (const std::string& path : cache_.pathsOf(name)) {
        add(path);
      }
      for (const char* folder : {"/lib64/", "/usr/lib64/", "/lib/", "/usr/lib/"}) {
        add(folder + name);
      }
    }
  }

  void add(const std::string& path) {
    if (files_.size() >= kMaxFiles || !isForLibraries(path) ||
        std::find(files_.begin(), files_.end(), path) != files_.end()) {
      return;
    }
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status = {};
    if (file && ::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode) && read(file.get())) {
      files_.push_back(path);
    }
  }

  const Dynamic executable_;
  const Cache cache_;
  std::vector<std::string> files_;
};

}  // namespace

Libraries librariesOf(int executable) {
  auto dynamic = read(executable);
  if (!dynamic) {
    throw Error(ErrorCode::kInvalidArgument, "the worker is not an ELF executable for this machine");
  }
  return dynamic->loader.empty() ? Libraries() : Search(std::move(*dynamic)).run();
}

std::vector<std::string> filesBesides(const std::vector<std::string>& targets, const std::vector<std::string>& files) {
  std::vector<std::string> besides;
  for (const std::string& file : files) {
    const auto holds = [&](const std::string& target) { return file == target || file.starts_with(target + '/'); };
    if (std::none_of(targets.begin(), targets.end(), holds) &&
        std::find(besides.begin(), besides.end(), file) == besides.end()) {
      besides.push_back(file);
    }
  }
  return besides;
}

}  // namespace vmmhost::spawn
