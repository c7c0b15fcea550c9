#include "host/config/flags.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "host/base/text.h"
#include "host/config/json.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::config {

namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{4} << 20;
constexpr std::size_t kMaxShownPathBytes = 1024;

// A flag's text goes into the structure unchecked but for what Cap'n Proto's Text cannot carry as a C string.
capnp::Text::Reader text(const char* flag, const std::string& value) {
  if (!isUtf8(value)) {
    throw Error(ErrorCode::kInvalidArgument, std::string(flag) + ": " + inQuotes(value) + " is not UTF-8");
  }
  return {value.c_str(), value.size()};
}

// The same for what cannot be empty: a variable of a script that was never set is not "none".
capnp::Text::Reader given(const char* flag, const std::string& value, const char* what) {
  if (value.empty()) {
    throw Error(ErrorCode::kInvalidArgument, std::string(flag) + ": " + what + " is missing", "leave it out for none");
  }
  return text(flag, value);
}

std::uint32_t parseCount(const char* flag, const std::string& value) {
  std::uint32_t number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, code] = std::from_chars(value.data(), end, number);
  if (code == std::errc::result_out_of_range) {
    throw Error(ErrorCode::kInvalidArgument, std::string(flag) + ": " + inQuotes(value) + " is out of range");
  }
  if (code != std::errc() || stop != end) {
    throw Error(ErrorCode::kInvalidArgument, std::string(flag) + ": expected a whole number, found " + inQuotes(value));
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

std::string readTextFile(const std::string& path, std::size_t maxBytes, std::chrono::milliseconds silence) {
  const bool standardInput = path == "-";
  const std::string name = standardInput ? "standard input" : printable(path, kMaxShownPathBytes);
  Fd file;
  if (path.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the path of a file to read is empty");
  }
  if (!standardInput) {
    // Non-blocking: opening a FIFO would wait for somebody who writes it.
    file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!file && errno == ENXIO) {
      throw Error(ErrorCode::kInvalidArgument, name + " is a socket, or a device that is not there", "name a file");
    }
    if (!file) {
      throw systemError("opening " + name, errno);
    }
  }
  const int fd = standardInput ? STDIN_FILENO : file.get();
  const auto tooLong = [&](const std::string& size) {
    return Error(ErrorCode::kInvalidArgument,
                 name + " has " + size + " bytes; expected at most " + std::to_string(maxBytes));
  };
  struct stat status = {};
  if (::fstat(fd, &status) == 0) {
    if (S_ISDIR(status.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument, name + " is a folder", "name a file");
    }
    if (S_ISREG(status.st_mode) && static_cast<std::uint64_t>(status.st_size) > maxBytes) {
      throw tooLong(std::to_string(status.st_size));
    }
  }
  std::string content;
  char buffer[16384];
  for (;;) {
    pollfd readable{fd, POLLIN, 0};
    if (::poll(&readable, 1, standardInput ? -1 : static_cast<int>(silence.count())) == 0) {
      throw Error(ErrorCode::kDeadlineExceeded,
                  name + ": nobody wrote to it within " + std::to_string(silence.count()) + " ms",
                  "write it first, or give it on standard input: -f -", true);
    }
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
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
      throw tooLong("more than " + std::to_string(maxBytes));
    }
  }
}

void buildVmConfig(const RunFlags& flags, schema::VmConfig::Builder into) {
  if (flags.file) {
    given("--file", *flags.file, "a path");
    parseJson(*flags.file == "-" ? "standard input" : *flags.file, readTextFile(*flags.file, kMaxConfigBytes), into);
  }
  auto boot = into.hasBoot() ? into.getBoot() : into.initBoot();
  auto cpus = into.hasCpus() ? into.getCpus() : into.initCpus();
  auto memory = into.hasMemory() ? into.getMemory() : into.initMemory();
  if (flags.name) {
    into.setName(given("--name", *flags.name, "a name"));
  }
  if (flags.kernel) {
    boot.initKernel().setPath(given("--kernel", *flags.kernel, "a path"));
  }
  if (flags.initrd) {
    boot.initInitrd().setPath(given("--initrd", *flags.initrd, "a path"));
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
