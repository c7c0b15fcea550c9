#include "tests/hostile/flood/frames.h"

#include <capnp/serialize.h>

#include <cstring>

#include "vmmhost/schema/host.capnp.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::hostile {
namespace {

// Methods of Control, by their numbers in the schema.
constexpr std::uint16_t kHello = 0;
constexpr std::uint16_t kWait = 7;
// The host exports the console's socket, the page of counters, and then the sink.
constexpr std::uint32_t kSinkExport = 2;

}  // namespace

Door controlDoor() {
  return {true, 0, capnp::typeId<schema::Control>(), kHello, kWait};
}

Door workerDoor() {
  return {false, kSinkExport, capnp::typeId<schema::EventSink>(), 0, 0};
}

Bytes header(std::uint32_t words) {
  Bytes bytes(8);
  std::memcpy(bytes.data() + 4, &words, sizeof words);
  return bytes;
}

Bytes frame(std::span<const std::uint64_t> words) {
  Bytes bytes = header(static_cast<std::uint32_t>(words.size()));
  bytes.resize(8 + words.size_bytes());
  std::memcpy(bytes.data() + 8, words.data(), words.size_bytes());
  return bytes;
}

Bytes frame(capnp::MessageBuilder& message) {
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  return {bytes.begin(), bytes.end()};
}

Bytes message(const std::function<void(capnp::rpc::Message::Builder)>& fill) {
  capnp::MallocMessageBuilder builder;
  fill(builder.initRoot<capnp::rpc::Message>());
  return frame(builder);
}

Bytes bootstrap(std::uint32_t question) {
  return message([&](auto root) { root.initBootstrap().setQuestionId(question); });
}

Bytes finish(std::uint32_t question) {
  return message([&](auto root) { root.initFinish().setQuestionId(question); });
}

Bytes call(std::uint32_t question, const Door& door, std::uint16_t method,
           const std::function<void(capnp::rpc::Call::Builder)>& fill) {
  return message([&](auto root) {
    auto call = root.initCall();
    call.setQuestionId(question);
    call.setInterfaceId(door.interfaceId);
    call.setMethodId(method);
    call.initTarget().setImportedCap(door.target);
    call.initParams();
    if (fill) {
      fill(call);
    }
  });
}

Bytes Repeated::some(unsigned count) {
  Bytes bytes;
  for (unsigned i = 0; i < count; ++i) {
    const Bytes one = make_(next_++);
    bytes.insert(bytes.end(), one.begin(), one.end());
  }
  return bytes;
}

}  // namespace vmmhost::hostile
