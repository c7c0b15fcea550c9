// JSON text as users and files bring it: read, checked, written, and read again.
#include <capnp/message.h>

#include "host/config/json.h"
#include "host/config/vm_config.h"
#include "tests/fuzz/fuzz.h"
#include "vmmhost/schema/host.capnp.h"

using namespace vmmhost;

namespace {

template <typename Schema>
void roundTrip(std::string_view text) {
  capnp::MallocMessageBuilder first;
  auto config = first.initRoot<Schema>();
  if (!fuzz::accepted([&] { config::parseJson("input", text, config); })) {
    return;
  }
  for (const config::WriteOptions options : {config::WriteOptions{true, false}, config::WriteOptions{false, true}}) {
    const std::string written = config::writeJson(config.asReader(), options);
    capnp::MallocMessageBuilder second;
    auto again = second.initRoot<Schema>();
    config::parseJson("what was written", written, again);
    fuzz::require(config::writeJson(again.asReader(), options) == written, "what is written is read as it was");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text(data, size);
  roundTrip<schema::VmConfig>(text);
  roundTrip<schema::VmInfo>(text);  // exit.json
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  fuzz::accepted([&] {
    config::parseJson("input", text, config);
    config::validateVmConfig(config.asReader());
  });
  fuzz::accepted([&] { config::parseByteSize("size", text); });
  return 0;
}
