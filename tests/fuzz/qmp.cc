// What QEMU says, which a guest may have taken over.
#include <string>

#include "tests/fuzz/fuzz.h"
#include "worker/qmp_message.h"

using namespace vmmhost;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  qemubackend::LineReader lines;
  FuzzedDataProvider input(data, size);
  fuzz::accepted([&] {
    while (input.remaining_bytes() > 0) {
      lines.feed(input.ConsumeRandomLengthString(4096));
      while (const auto line = lines.next()) {
        fuzz::require(line->size() <= qemubackend::LineReader::kMaxLineBytes, "lines are bounded");
        fuzz::accepted([&] { qemubackend::parseQmpMessage(*line); });
      }
    }
  });
  fuzz::accepted([&] { qemubackend::parseQmpMessage(fuzz::text(data, size)); });
  return 0;
}
