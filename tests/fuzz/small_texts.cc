// Texts that other processes, files and people write: /proc, the kernel's log, runtime records, flags, a guest's
// console.
#include <capnp/message.h>

#include <array>
#include <string>

#include "host/base/log.h"
#include "host/base/text.h"
#include "host/cli/terminal/terminal_filter.h"
#include "host/config/flags.h"
#include "host/config/vm_config.h"
#include "host/jailed/kernel_log.h"
#include "host/runtime/record.h"
#include "host/vm/vsock_line.h"
#include "ipc/jail/confinement/proc_reader.h"
#include "tests/fuzz/fuzz.h"

using namespace vmmhost;

namespace {

bool isShowable(std::string_view text, std::string_view allowed = {}) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 || byte == 0x7f) && allowed.find(c) == std::string_view::npos) {
      return false;
    }
  }
  return isUtf8(text);
}

void show(std::string_view text) {
  const std::string shown = printable(text, 100);
  fuzz::require(isShowable(shown) && shown.size() <= 100, "printable text can be shown, and is bounded");
  fuzz::require(printable(shown, 100) == shown, "and is not changed by the same again");
  fuzz::require(isShowable(inQuotes(text)), "quoted text can be shown");
  cli::TerminalFilter whole;
  const std::string once = whole.feed(text) + whole.finish();
  fuzz::require(isShowable(once, "\r\n\t"), "a console's text can be shown");
  cli::TerminalFilter pieces;
  std::string parts;
  for (const char c : text) {
    parts += pieces.feed({&c, 1});
  }
  fuzz::require(parts + pieces.finish() == once, "in pieces it is the same");
}

void connectLine(std::string_view text) {
  const vm::ConnectLine line = vm::parseConnectLine(text);
  fuzz::require(line.bytes <= vm::kMaxConnectLine && line.bytes <= text.size(), "a line is bounded");
  fuzz::require(line.state != vm::ConnectLine::State::kPort || text[line.bytes - 1] == '\n', "a line has an end");
}

void proc(std::string_view text) {
  confinement::parseStatus(text);
  confinement::parseNumbers(text);
  for (const auto& mount : confinement::parseMountinfo(text)) {
    fuzz::require(!mount.target.empty(), "a mount has a place");
  }
  if (const auto call = jailed::parseForbiddenCall(text, 1)) {
    fuzz::require(isShowable(jailed::describe(*call)), "a forbidden call can be shown");
  }
}

void record(std::string_view text) {
  if (const auto record = runtime::parseRecord(text)) {
    // Values may hold a zero byte, which is refused on writing.
    fuzz::accepted([&] {
      const std::string written = runtime::formatRecord(*record);
      const auto again = runtime::parseRecord(written);
      fuzz::require(written.size() > runtime::kMaxRecordBytes || again.has_value(), "what is written is read");
    });
  }
}

void flags(FuzzedDataProvider& input) {
  const auto maybe = [&](std::optional<std::string>& flag) {
    if (input.ConsumeBool()) {
      flag = input.ConsumeRandomLengthString(64);
    }
  };
  config::RunFlags flags;
  for (auto* flag : {&flags.name, &flags.kernel, &flags.initrd, &flags.cmdline, &flags.cpus, &flags.memory}) {
    maybe(*flag);
  }
  while (input.ConsumeBool() && flags.disks.size() < 8) {
    flags.disks.push_back(input.ConsumeRandomLengthString(64));
  }
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  fuzz::accepted([&] {
    config::buildVmConfig(flags, config);
    config::validateVmConfig(config.asReader());
  });
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view rest = fuzz::text(data + 1, size - 1);
  FuzzedDataProvider input(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      show(rest);
      break;
    case 1:
      proc(rest);
      connectLine(rest);
      break;
    case 2:
      record(rest);
      break;
    default:
      flags(input);
      break;
  }
  return 0;
}
