// JSON text <-> schema structures, strictly.
#pragma once

#include <capnp/dynamic.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace vmmhost::config {

// Fills `into` from JSON text. Refused with Error(kInvalidArgument), whose message names the path of the offender
// ("disks[1].readOnly: expected true or false, found a string"): text over 4 MiB or nested deeper than 64, invalid
// UTF-8, an unknown member, a duplicate member, a wrong type, a number that does not fit its type exactly, an unknown
// enumerant, more than one member of a union, a member marked hostOnly. `source` names the text in messages, e.g. the
// file name. Sizes ($byteSize) may be strings such as "512M". A struct with $textForm may be a string.
void parseJson(std::string_view source, std::string_view text, capnp::DynamicStruct::Builder into);

// The same shape, which parseJson takes back: members with default values are left out unless `withDefaults`;
// hostOnly members always. 64-bit numbers are written as numbers.
struct WriteOptions {
  bool pretty = true;
  bool withDefaults = false;
};
std::string writeJson(capnp::DynamicStruct::Reader from, const WriteOptions& options = {});

// "512M", "2GiB", "1048576" -> bytes; powers of 1024; suffixes K, M, G, T of either case with optional "iB" or "B".
// Throws Error(kInvalidArgument) naming `what`.
std::uint64_t parseByteSize(std::string_view what, std::string_view text);

}  // namespace vmmhost::config
