// Configurations as Cap'n Proto, from anybody: what the host, the kvm worker and the QEMU worker make of them.
#include "host/config/vm_config.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstring>
#include <vector>

#include "config/machine_spec.h"
#include "host/config/json.h"
#include "host/config/plugin_view.h"
#include "tests/fuzz/fuzz.h"
#include "vmmhost/plugin.h"
#include "vmmhost/schema/host.capnp.h"
#include "worker-kvm/config/check.h"

using namespace vmmhost;

namespace {

void look(schema::VmConfig::Reader config) {
  fuzz::accepted([&] { kvm::config::check(config); });
  fuzz::accepted([&] { qemubackend::readConfig(config); });
  if (fuzz::accepted([&] { config::validateVmConfig(config); })) {
    // What is valid can be shown, and what is shown is valid.
    const std::string written = config::writeJson(config);
    capnp::MallocMessageBuilder message;
    auto again = message.initRoot<schema::VmConfig>();
    config::parseJson("what was written", written, again);
    config::validateVmConfig(again.asReader());
    fuzz::require(!config::findNewerField(again.asReader(), VMMHOST_PLUGIN_ABI_MINOR, {}), "no field is from tomorrow");
  }
  fuzz::accepted([&] { config::findNewerField(config, 0, {}); });
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<capnp::word> words(size / sizeof(capnp::word));
  if (words.empty()) {
    return 0;
  }
  std::memcpy(words.data(), data, words.size() * sizeof(capnp::word));
  const kj::ArrayPtr<const capnp::word> segment(words.data(), words.size());
  const kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments(&segment, 1);
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 32768;
  options.nestingLimit = 24;
  try {
    capnp::SegmentArrayMessageReader message(segments, options);
    look(message.getRoot<schema::VmConfig>());
  } catch (const kj::Exception&) {  // malformed: refused by the library
  }
  try {
    // As `vmmhost run` sends it to a supervisor, which copies the configuration.
    capnp::SegmentArrayMessageReader message(segments, options);
    const auto request = message.getRoot<schema::LaunchRequest>();
    capnp::MallocMessageBuilder copy;
    copy.setRoot(request.getConfig());
    look(copy.getRoot<schema::VmConfig>().asReader());
  } catch (const kj::Exception&) {
  }
  return 0;
}
