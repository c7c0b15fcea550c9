// What tests and jail-prober say to each other: one order, one answer, over the prober's descriptor 3.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vmmhost::spawn::prober {

inline constexpr std::size_t kRoom = 512;

enum class Kind : std::uint32_t {
  kCall,         // carries system call `number` out
  kCallInChild,  // the same in a child, which ends with the errno; answers the child's pid
  kEndSetup,  // endSetup() with a filter that lets nobody call socket() or capset(); answers 0, or 1 and what is left
  kStartThread,  // which stays
  kProgram,      // programs::descriptorOf(arguments[0])
};

struct Order {
  Kind kind = Kind::kCall;
  std::uint32_t number = 0;
  std::uint64_t arguments[6] = {};
  std::uint32_t pointers = 0;  // bits: arguments that are offsets in `data`, and become pointers into it
  std::uint8_t data[kRoom] = {};
};

struct Answer {
  std::int64_t result = 0;
  std::int32_t error = 0;  // errno where `result` is -1
  std::uint8_t data[kRoom] = {};
};

}  // namespace vmmhost::spawn::prober
