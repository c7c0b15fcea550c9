#include "worker/image_check.h"

#include <cstdint>
#include <cstring>

#include "vmmhost/error.h"

namespace qemubackend {

using vmmhost::Error;
using vmmhost::ErrorCode;

namespace {

bool hasBytes(std::span<const std::byte> data, std::size_t offset, const char* expected, std::size_t size) {
  return data.size() >= offset + size && std::memcmp(data.data() + offset, expected, size) == 0;
}

std::uint64_t bigEndian(std::span<const std::byte> data, std::size_t offset, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value = value << 8 | std::to_integer<std::uint64_t>(data[offset + i]);
  }
  return value;
}

}  // namespace

void checkQcow2Header(const std::string& field, std::span<const std::byte> header) {
  // QEMU's docs/interop/qcow2.txt: magic, version, backing_file_offset (8), incompatible_features (72, version 3).
  constexpr std::size_t kVersion2Bytes = 72;
  constexpr std::size_t kVersion3Bytes = 104;
  constexpr std::uint64_t kExternalDataFile = 1 << 2;
  if (!hasBytes(header, 0, "QFI\xfb", 4) || header.size() < kVersion2Bytes) {
    throw Error(ErrorCode::kInvalidArgument, field + ".format: the file is not a qcow2 image",
                "is it a raw image? then say format raw")
        .withField(field + ".format");
  }
  const std::uint64_t version = bigEndian(header, 4, 4);
  if (version != 2 && (version != 3 || header.size() < kVersion3Bytes)) {
    throw Error(ErrorCode::kInvalidArgument, field + ".file: a qcow2 image of an unknown version")
        .withField(field + ".file");
  }
  const std::string hint = "make it independent with: qemu-img convert -O qcow2";
  if (bigEndian(header, 8, 8) != 0) {
    throw Error(ErrorCode::kUnsupported, field + ".file: the qcow2 image has a backing file", hint)
        .withField(field + ".file");
  }
  if (version == 3 && (bigEndian(header, 72, 8) & kExternalDataFile) != 0) {
    throw Error(ErrorCode::kUnsupported, field + ".file: the qcow2 image keeps its data in another file", hint)
        .withField(field + ".file");
  }
}

}  // namespace qemubackend
