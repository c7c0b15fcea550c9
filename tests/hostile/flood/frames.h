// RPC messages as bytes, well-formed and not, for peers that keep to no rule.
#pragma once

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tests/hostile/flood/wire.h"

namespace vmmhost::hostile {

using Bytes = std::vector<std::uint8_t>;

// What of the process under attack can be called, on a control connection or on a worker's.
struct Door {
  bool isControl = false;
  std::uint32_t target = 0;  // its export that takes calls
  std::uint64_t interfaceId = 0;
  std::uint16_t quickMethod = 0;
  std::uint16_t endlessMethod = 0;  // one that is not answered while the VM lives, if there is one
};
Door controlDoor();  // the bootstrap capability, once it was asked for
Door workerDoor();   // the sink for events, which the host sends with create

// The segment table that belongs to one segment of `words`.
Bytes header(std::uint32_t words);
Bytes frame(std::span<const std::uint64_t> words);  // one segment
Bytes frame(capnp::MessageBuilder& message);

// `fill` gets the root.
Bytes message(const std::function<void(capnp::rpc::Message::Builder)>& fill);
Bytes bootstrap(std::uint32_t question);
Bytes finish(std::uint32_t question);
// `fill`, if any, adds parameters.
Bytes call(std::uint32_t question, const Door& door, std::uint16_t method,
           const std::function<void(capnp::rpc::Call::Builder)>& fill = {});

// Messages again and again with rising question numbers: `make` gets the number and makes what belongs together.
class Repeated {
 public:
  Repeated(std::uint32_t first, const std::function<Bytes(std::uint32_t)>& make) : next_(first), make_(make) {}
  // Some hundreds of them in one piece.
  Bytes some(unsigned count = 256);

 private:
  std::uint32_t next_;
  std::function<Bytes(std::uint32_t)> make_;
};

inline Bytes operator+(Bytes one, const Bytes& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

}  // namespace vmmhost::hostile
