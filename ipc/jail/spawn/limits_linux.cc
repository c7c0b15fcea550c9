#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ipc/jail/spawn/limits.h"

namespace vmmhost::spawn {
namespace {

struct LimitText {
  std::uint32_t resource;
  const char* name;
  const char* what;
  char option;       // of the shells' ulimit
  const char* unit;  // systemd.exec(5)
  bool isBytes;
};

constexpr std::array<LimitText, 6> kTexts = {
    {{RLIMIT_AS, "RLIMIT_AS", "address space", 'v', "LimitAS", true},
     {RLIMIT_DATA, "RLIMIT_DATA", "memory", 'd', "LimitDATA", true},
     {RLIMIT_STACK, "RLIMIT_STACK", "stacks", 's', "LimitSTACK", true},
     {RLIMIT_FSIZE, "RLIMIT_FSIZE", "the size of files", 'f', "LimitFSIZE", true},
     {RLIMIT_NPROC, "RLIMIT_NPROC", "processes", 'u', "LimitNPROC", false},
     {RLIMIT_NOFILE, "RLIMIT_NOFILE", "open files", 'n', "LimitNOFILE", false}}};

// Of a command and a supervisor, whatever the VM. The sweeps of tests/faults/test_limits.py got by with 11 MiB of
// address space, 576 KiB of memory and 128 KiB of stack.
constexpr std::array<std::pair<std::uint32_t, std::uint64_t>, 3> kOfTheHost = {
    {{RLIMIT_AS, std::uint64_t{24} << 20}, {RLIMIT_DATA, 768 << 10}, {RLIMIT_STACK, 128 << 10}}};

// More are of no use to a host with one VM.
constexpr rlim_t kWantedDescriptors = 8192;

std::string sizeText(std::uint64_t bytes) {
  constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
  if (bytes >= 10 * kMebibyte) {
    return std::to_string((bytes + kMebibyte - 1) / kMebibyte) + " MiB";
  }
  return bytes >= 1024 && bytes % 1024 == 0 ? std::to_string(bytes / 1024) + " KiB" : std::to_string(bytes) + " bytes";
}

std::string valueText(const LimitText& text, std::uint64_t value) {
  return text.isBytes ? sizeText(value) : std::to_string(value);
}

const LimitText* textOf(std::uint32_t resource) {
  const auto* found =
      std::find_if(kTexts.begin(), kTexts.end(), [&](const LimitText& text) { return text.resource == resource; });
  return found == kTexts.end() ? nullptr : found;
}

std::optional<rlimit> own(std::uint32_t resource) {
  rlimit limit = {};
  if (::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) {
    return std::nullopt;
  }
  return limit;
}

std::string mendText(const LimitText& text, std::uint64_t needed) {
  const std::string value =
      text.resource == RLIMIT_NOFILE ? std::to_string(std::max<std::uint64_t>(needed, 1024)) : std::string("unlimited");
  const std::string inUnit = text.resource == RLIMIT_NOFILE ? value : "infinity";
  return std::string("ulimit -") + text.option + ' ' + value +
         " in the shell that starts it (root's, where it is the hard limit), or " + text.unit + '=' + inUnit +
         " in its unit";
}

}  // namespace

std::optional<Error> tooLow(std::uint32_t resource, std::uint64_t needed, const std::string& taker) {
  const LimitText* text = textOf(resource);
  const auto limit = own(resource);
  if (text == nullptr || !limit || limit->rlim_max >= needed) {
    return std::nullopt;
  }
  return Error(ErrorCode::kResourceExhausted,
               std::string("the limit of ") + text->what + " (" + text->name + ") is " +
                   valueText(*text, limit->rlim_max) + "; " + taker + " takes " + valueText(*text, needed),
               mendText(*text, needed));
}

std::optional<Error> tooLowForTheHost() {
  for (const auto& [resource, needed] : kOfTheHost) {
    if (auto error = tooLow(resource, needed, "vmmhost itself")) {
      return error;
    }
  }
  return std::nullopt;
}

Error outOfMemory() {
  for (const std::uint32_t resource : {RLIMIT_DATA, RLIMIT_AS}) {
    const LimitText& text = *textOf(resource);
    const auto limit = own(resource);
    if (limit && limit->rlim_cur != RLIM_INFINITY) {
      return Error(ErrorCode::kResourceExhausted,
                   std::string("memory has run out: the limit of ") + text.what + " (" + text.name + ") is " +
                       valueText(text, limit->rlim_cur),
                   mendText(text, 0), true);
    }
  }
  return Error(ErrorCode::kResourceExhausted, "memory has run out", {}, true);
}

void raiseOwnLimits() noexcept {
  const auto raise = [](std::uint32_t resource, rlim_t wanted) {
    auto limit = own(resource);
    if (limit && limit->rlim_cur < std::min(limit->rlim_max, wanted)) {
      limit->rlim_cur = std::min(limit->rlim_max, wanted);
      ::setrlimit(static_cast<__rlimit_resource_t>(resource), &*limit);
    }
  };
  for (const auto& [resource, needed] : kOfTheHost) {
    raise(resource, needed);
  }
  raise(RLIMIT_NOFILE, kWantedDescriptors);
  raise(RLIMIT_FSIZE, RLIM_INFINITY);  // of disks and of memory, each as its VM needs it
}

}  // namespace vmmhost::spawn
