// What fuzz targets share. A target takes bytes as somebody hostile may send them; an Error is a good answer to them,
// and anything else that is thrown, a sanitizer's finding or a broken require() is a fault.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "vmmhost/error.h"

namespace vmmhost::fuzz {

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
  }
}

// False when it was refused, with a message.
template <typename Call>
bool accepted(Call&& call) {
  try {
    std::forward<Call>(call)();
    return true;
  } catch (const Error& error) {
    require(!error.message().empty(), "an error says what is wrong");
    return false;
  }
}

}  // namespace vmmhost::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
