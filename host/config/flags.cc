#include "host/config/flags.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "host/config/json.h"
#include "host/config/text.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::config {

namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{4} << 20;

// A flag's text goes into the structure unchecked but for what Cap'n Proto's Text cannot carry as a C string.
capnp::Text::Reader text(const char* flag, const std::string& value) {
  if (!isUtf8(value)) {
    throw Error(ErrorCode::kInvalidArgument, std::string(flag) + ": " + inQuotes(value) + " is not UTF-8");
  }
  return {value.c_str(), value.size()};
}

std::uint32_t parseCount(const char* flag, const std::string& value) {
  std::uint32_t number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, code] = std::from_chars(value.data(), end, number);
  if (code != std::errc() || stop != end) {
    throw Error(ErrorCode::kInvalidArgument, std::string(flag) + ": expected a number, found " + inQuotes(value));
  }
  return number;
}

void setDisk(const std::string& value, schema::Disk::Builder disk) {
  std::string path = value;
  if (const auto comma = value.rfind(','); comma != std::string::npos) {
    const std::string option = value.substr(comma + 1);
    if (option != "ro") {
      throw Error(ErrorCode::kInvalidArgument, "--disk: " + inQuotes(option) + " is no option of a disk",
                  "write PATH or PATH,ro; everything else, and paths with a comma, can be said in a file: -f vm.json");
    }
    path.resize(comma);
    disk.setReadOnly(true);
  }
  if (path.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--disk: a path is missing in " + inQuotes(value));
  }
  disk.initFile().setPath(text("--disk", path));
}

// A list cannot grow in place: the longer one is made beside it.
void addDisks(const std::vector<std::string>& values, schema::VmConfig::Builder into) {
  const auto before = into.disownDisks();
  const auto old = before.getReader();
  auto disks = into.initDisks(old.size() + static_cast<unsigned>(values.size()));
  for (unsigned index = 0; index < old.size(); ++index) {
    disks.setWithCaveats(index, old[index]);
  }
  for (unsigned index = 0; index < values.size(); ++index) {
    setDisk(values[index], disks[old.size() + index]);
  }
}

}  // namespace

std::string readTextFile(const std::string& path, std::size_t maxBytes) {
  const std::string name = path == "-" ? "standard input" : printable(path);
  Fd file;
  if (path != "-") {
    file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (!file) {
      throw systemError("opening " + name, errno);
    }
  }
  const int fd = path == "-" ? STDIN_FILENO : file.get();
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw systemError("reading " + name, errno);
    }
    if (count == 0) {
      return content;
    }
    content.append(buffer, static_cast<std::size_t>(count));
    if (content.size() > maxBytes) {
      throw Error(ErrorCode::kInvalidArgument, name + " has more than " + std::to_string(maxBytes) + " bytes");
    }
  }
}

void buildVmConfig(const RunFlags& flags, schema::VmConfig::Builder into) {
  if (flags.file) {
    parseJson(*flags.file == "-" ? "standard input" : *flags.file, readTextFile(*flags.file, kMaxConfigBytes), into);
  }
  auto boot = into.hasBoot() ? into.getBoot() : into.initBoot();
  auto cpus = into.hasCpus() ? into.getCpus() : into.initCpus();
  auto memory = into.hasMemory() ? into.getMemory() : into.initMemory();
  if (flags.name) {
    into.setName(text("--name", *flags.name));
  }
  if (flags.kernel) {
    boot.initKernel().setPath(text("--kernel", *flags.kernel));
  }
  if (flags.initrd) {
    boot.initInitrd().setPath(text("--initrd", *flags.initrd));
  }
  if (flags.cmdline) {
    boot.setCmdline(text("--cmdline", *flags.cmdline));
  }
  if (flags.cpus) {
    cpus.setCount(parseCount("--cpus", *flags.cpus));
  }
  if (flags.memory) {
    memory.setSize(parseByteSize("--memory", *flags.memory));
  }
  if (!flags.disks.empty()) {
    addDisks(flags.disks, into);
  }
}

}  // namespace vmmhost::config
