// Bytes that are no message, or none that anybody should follow.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/hostile/flood/floods.h"

namespace vmmhost::hostile {
namespace {

constexpr std::uint32_t kMaxWords = 32768;  // rpc::Limits::maxMessageWords

Bytes table(std::initializer_list<std::uint32_t> numbers) {
  Bytes bytes(numbers.size() * 4);
  std::memcpy(bytes.data(), numbers.begin(), bytes.size());
  return bytes;
}

// The beginning of something, and then nothing more.
void hold(Wire& wire, const Bytes& bytes) {
  wire.send(bytes);
  wire.rest();
}

void halfCount(Wire& wire, const Door&) {
  hold(wire, Bytes(3));
}
void halfHeader(Wire& wire, const Door&) {
  hold(wire, Bytes(6));
}
void halfTable(Wire& wire, const Door&) {
  hold(wire, table({15, 1, 1, 1, 1, 1, 1}));
}
void headerAlone(Wire& wire, const Door&) {
  hold(wire, header(512));
}
void halfWord(Wire& wire, const Door&) {
  hold(wire, header(512) + Bytes(3));
}
void allButOneByte(Wire& wire, const Door&) {
  Bytes bytes = bootstrap(0);
  bytes.pop_back();
  hold(wire, bytes);
}
// As much as is ever held for a message that has not come to its end.
void bigMessageAllButOneByte(Wire& wire, const Door&) {
  hold(wire, header(kMaxWords) + Bytes(kMaxWords * 8 - 1, 0xff));
}
void acceptableMessageAllButOneByte(Wire& wire, const Door&) {
  hold(wire, header(1024) + Bytes(1024 * 8 - 1, 0xff));
}

void oneByteAtATime(Wire& wire, const Door&) {
  Repeated asking(1, [](std::uint32_t question) { return bootstrap(question) + finish(question); });
  while (!wire.isOver()) {
    for (const std::uint8_t byte : asking.some(4)) {
      if (!wire.send({&byte, 1})) {
        return;
      }
    }
    wire.read();
  }
}

void oversize(Wire& wire, const Door&) {
  hold(wire, header(kMaxWords + 1));
}
void sizesThatAddUp(Wire& wire, const Door&) {
  hold(wire, table({2, 0xffffffff, 0xffffffff, 0xffffffff}));
}
void countThatWraps(Wire& wire, const Door&) {
  hold(wire, table({0xffffffff, 0}));
}
void tooManySegments(Wire& wire, const Door&) {
  hold(wire, table({16, 0}));
}

void empty(Wire& wire, const Door&) {
  hold(wire, header(0) + header(0));
}

// A struct in a struct in a struct: each word points to the next.
void deepPointers(Wire& wire, const Door&) {
  std::vector<std::uint64_t> words(1000, std::uint64_t{1} << 48);
  hold(wire, frame(words));
}

// Far pointers, each of which says that the thing is where the other is.
void farPointerLoop(Wire& wire, const Door&) {
  const std::vector<std::uint64_t> words(8, 2 | (std::uint64_t{1} << 3));
  hold(wire, frame(words));
}

void doubleFarPointers(Wire& wire, const Door&) {
  const std::vector<std::uint64_t> words(8, 6 | (std::uint64_t{1} << 3));
  hold(wire, frame(words));
}

// Lists of 64 pointers, each pointer of which leads to the one next list: worth 64 to the power of their number to who
// follows them all. Made as data first, which then becomes that by the pointer to it.
constexpr std::size_t kLists = 6;
constexpr std::size_t kPointers = 64;
constexpr std::uint64_t kBytesOfData = kLists * kPointers * 8;

constexpr std::uint64_t listOf(std::uint64_t elementSize, std::uint64_t count) {
  return elementSize << 32 | count << 35;
}

void fillLists(capnp::Data::Builder data) {
  for (std::uint64_t i = 0; i + kPointers < kLists * kPointers; ++i) {
    const std::uint64_t distance = (i / kPointers + 1) * kPointers - i - 1;
    const std::uint64_t pointer = 1 | distance << 2 | listOf(6, kPointers);
    std::memcpy(data.begin() + i * 8, &pointer, sizeof pointer);
  }
}

Bytes withLists(Bytes bytes) {
  for (std::size_t at = 8; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    if (word >> 32 == listOf(2, kBytesOfData) >> 32 && (word & 3) == 1) {
      word = (word & 0xffffffff) | listOf(6, kPointers);
      std::memcpy(bytes.data() + at, &word, sizeof word);
      return bytes;
    }
  }
  std::abort();
}

void amplifiedParameters(Wire& wire, const Door& door) {
  if (door.isControl && !wire.send(bootstrap(0))) {
    return;
  }
  Repeated calls(1, [&](std::uint32_t question) {
    return withLists(call(question, door, door.quickMethod,
                          [](capnp::rpc::Call::Builder call) {
                            fillLists(call.getParams().getContent().initAs<capnp::Data>(kBytesOfData));
                          })) +
           finish(question);
  });
  while (wire.send(calls.some(16)) && wire.read(std::size_t{1} << 20)) {
  }
}

// What does not know the kind must not send it back.
void amplifiedUnknownKind(Wire& wire, const Door&) {
  Bytes bytes = withLists(message(
      [](capnp::rpc::Message::Builder root) { fillLists(root.initObsoleteSave().initAs<capnp::Data>(kBytesOfData)); }));
  bytes[16] = 99;
  while (wire.send(bytes)) {
  }
}

constexpr std::array kFloods = {
    Flood{"half-count", halfCount, End::kKept, End::kKept, 64},
    Flood{"half-header", halfHeader, End::kKept, End::kKept, 64},
    Flood{"half-table", halfTable, End::kKept, End::kKept, 64},
    Flood{"header-alone", headerAlone, End::kKept, End::kKept, 64},
    Flood{"half-word", halfWord, End::kKept, End::kKept, 64},
    Flood{"all-but-one-byte", allButOneByte, End::kKept, End::kKept, 64},
    Flood{"big-message-all-but-one-byte", bigMessageAllButOneByte, End::kCut, End::kKept, 64},
    Flood{"acceptable-message-all-but-one-byte", acceptableMessageAllButOneByte, End::kKept, End::kKept, 64},
    Flood{"one-byte-at-a-time", oneByteAtATime, End::kKept, End::kKept, 4},
    Flood{"oversize", oversize},
    Flood{"sizes-that-add-up", sizesThatAddUp},
    Flood{"count-that-wraps", countThatWraps},
    Flood{"too-many-segments", tooManySegments},
    Flood{"empty", empty},
    Flood{"deep-pointers", deepPointers},
    Flood{"far-pointer-loop", farPointerLoop},
    Flood{"double-far-pointers", doubleFarPointers},
    Flood{"amplified-parameters", amplifiedParameters, End::kKept, End::kCut, 4},
    Flood{"amplified-unknown-kind", amplifiedUnknownKind},
};

}  // namespace

std::span<const Flood> malformedFloods() {
  return kFloods;
}

}  // namespace vmmhost::hostile
