#include "tests/fake/config.h"

#include <charconv>
#include <utility>

#include "tests/fake/fault.h"
#include "vmmhost/error.h"

namespace vmmhost::fake {
namespace {

constexpr std::uint32_t kMaxCpus = 64;
constexpr std::uint64_t kMinMemoryBytes = std::uint64_t{2} << 20;
constexpr std::uint64_t kMaxMemoryBytes = std::uint64_t{1} << 40;
constexpr std::uint64_t kPageBytes = 4096;
constexpr std::size_t kMaxCommandLineBytes = 2047;
constexpr std::uint32_t kMaxTimeoutMs = 600'000;

[[noreturn]] void unsupported(const std::string& field) {
  throw Error(ErrorCode::kUnsupported, field + ": the fake backend does not play this",
              "remove " + field + " or choose another backend")
      .withField(field);
}

[[noreturn]] void invalid(const std::string& field, const std::string& reason) {
  throw Error(ErrorCode::kInvalidArgument, field + ": " + reason).withField(field);
}

void refuseIf(bool isGiven, const std::string& field) {
  if (isGiven) {
    unsupported(field);
  }
}

bool isGiven(schema::FileRef::Reader file) {
  return file.getPath().size() != 0 || file.getResource() != 0;
}

void checkBoot(schema::Boot::Reader boot) {
  refuseIf(isGiven(boot.getFirmware()), "boot.firmware");
  if (!isGiven(boot.getKernel())) {
    invalid("boot.kernel", "the fake backend needs a kernel: a guest of tests/guests");
  }
  const auto commandLine = boot.getCmdline();
  if (commandLine.size() > kMaxCommandLineBytes) {
    invalid("boot.cmdline",
            std::to_string(commandLine.size()) + " bytes, more than " + std::to_string(kMaxCommandLineBytes));
  }
  for (const char character : commandLine) {
    if (static_cast<unsigned char>(character) < 0x20 || character == 0x7f) {
      invalid("boot.cmdline", "contains a control character");
    }
  }
}

void checkCpus(schema::Cpus::Reader cpus) {
  const std::uint32_t count = cpus.getCount();
  if (count == 0 || count > kMaxCpus) {
    invalid("cpus.count", std::to_string(count) + ", not 1 to " + std::to_string(kMaxCpus));
  }
  refuseIf(count != 1, "cpus.count");
  refuseIf(cpus.getMax() != 0 && cpus.getMax() != count, "cpus.max");
  refuseIf(cpus.getThreadsPerCore() != 1, "cpus.threadsPerCore");
  refuseIf(cpus.getCoresPerSocket() != 0 && cpus.getCoresPerSocket() != count, "cpus.coresPerSocket");
}

void checkMemory(schema::Memory::Reader memory) {
  const std::uint64_t size = memory.getSize();
  if (size < kMinMemoryBytes || size > kMaxMemoryBytes) {
    invalid("memory.size", std::to_string(size) + " bytes, not 2 MiB to 1 TiB");
  }
  if (size % kPageBytes != 0) {
    invalid("memory.size", std::to_string(size) + " bytes are no multiple of 4 KiB");
  }
  refuseIf(memory.getMaxSize() != 0 && memory.getMaxSize() != size, "memory.maxSize");
  refuseIf(memory.getHugePages(), "memory.hugePages");
}

void checkPlatform(schema::Platform::Reader platform) {
  refuseIf(platform.getMachine().size() != 0, "platform.machine");
  refuseIf(platform.getNestedVirtualization(), "platform.nestedVirtualization");
  refuseIf(platform.getUuid().size() != 0, "platform.uuid");
  refuseIf(platform.getOptions().size() != 0, "platform.options[0]");
}

std::chrono::milliseconds parseTimeout(std::string_view word, std::string_view digits) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value == 0 || value > kMaxTimeoutMs) {
    invalid("boot.cmdline", std::string(word) + ": not a number of milliseconds from 1 to 600000");
  }
  return std::chrono::milliseconds(value);
}

void parseWord(std::string_view word, Orders& orders) {
  constexpr std::string_view kFault = "fault=";
  constexpr std::string_view kHello = "fault-deadline=hello:";
  constexpr std::string_view kCreate = "fault-deadline=create:";
  if (word.starts_with(kFault)) {
    const std::string_view text = word.substr(kFault.size());
    if (const ParsedFault parsed = parseFault(text); parsed.wrong != nullptr) {
      invalid("boot.cmdline", std::string(word) + ": " + parsed.wrong);
    }
    orders.faults.emplace_back(text);
  } else if (word.starts_with(kHello)) {
    orders.helloTimeout = parseTimeout(word, word.substr(kHello.size()));
  } else if (word.starts_with(kCreate)) {
    orders.createTimeout = parseTimeout(word, word.substr(kCreate.size()));
  } else if (word == "jail=grants") {
    orders.jailOfGrants = true;
  } else if (word.starts_with("fault")) {
    invalid("boot.cmdline", std::string(word) + ": not a fault that the fake backend knows");
  }
}

}  // namespace

void check(schema::VmConfig::Reader config) {
  checkBoot(config.getBoot());
  checkCpus(config.getCpus());
  checkMemory(config.getMemory());
  refuseIf(config.getDisks().size() != 0, "disks[0]");
  refuseIf(config.getNics().size() != 0, "nics[0]");
  refuseIf(config.getConsoles().size() > 0 && config.getConsoles()[0].getKind() != schema::Console::Kind::SERIAL,
           "consoles[0].kind");
  refuseIf(config.getShares().size() != 0, "shares[0]");
  refuseIf(config.hasRng() && config.getRng().getEnabled(), "rng");
  refuseIf(config.hasWatchdog(), "watchdog");
  checkPlatform(config.getPlatform());
}

Orders parseOrders(std::string_view commandLine) {
  Orders orders;
  while (!commandLine.empty()) {
    const std::size_t end = std::min(commandLine.find(' '), commandLine.size());
    parseWord(commandLine.substr(0, end), orders);
    commandLine.remove_prefix(std::min(end + 1, commandLine.size()));
  }
  return orders;
}

}  // namespace vmmhost::fake
