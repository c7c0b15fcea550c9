// Headers of qcow2 images, for tests.
#pragma once

#include <cstdint>
#include <string>

namespace vmmhost::vm {

struct TestImage {
  std::uint32_t version = 3;
  std::uint32_t clusterBits = 16;
  std::uint64_t virtualBytes = std::uint64_t{1} << 30;
  std::uint32_t l1Entries = 2;
  std::uint32_t refcountTableClusters = 1;
  std::uint32_t snapshots = 0;
  std::uint64_t incompatible = 0;
  std::uint64_t autoclear = 0;
  std::uint32_t refcountOrder = 4;

  std::string header() const {
    std::string bytes(104, '\0');
    const auto put = [&bytes](std::size_t offset, std::uint64_t value, std::size_t size) {
      for (std::size_t i = 0; i < size; ++i) {
        bytes[offset + i] = static_cast<char>(value >> (8 * (size - 1 - i)) & 0xff);
      }
    };
    bytes.replace(0, 4, "QFI\xfb");
    put(4, version, 4);
    put(20, clusterBits, 4);
    put(24, virtualBytes, 8);
    put(36, l1Entries, 4);
    put(56, refcountTableClusters, 4);
    put(60, snapshots, 4);
    put(72, incompatible, 8);
    put(88, autoclear, 8);
    put(96, refcountOrder, 4);
    put(100, 104, 4);
    return bytes;
  }
};

}  // namespace vmmhost::vm
