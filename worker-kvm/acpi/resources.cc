#include "worker-kvm/acpi/resources.h"

#include "worker-kvm/memory/byte_writer.h"

namespace vmmhost::kvm::acpi::aml {

namespace {

constexpr std::uint8_t kIoPort = 0x47;         // small, type 8, 7 bytes
constexpr std::uint8_t kEndTag = 0x79;         // small, type 15, 1 byte
constexpr std::uint8_t kMemory32Fixed = 0x86;  // large
constexpr std::uint8_t kDWordAddress = 0x87;
constexpr std::uint8_t kWordAddress = 0x88;
constexpr std::uint8_t kExtendedInterrupt = 0x89;
constexpr std::uint8_t kQWordAddress = 0x8a;

constexpr std::uint8_t kDecode16 = 0x01;
constexpr std::uint8_t kReadWrite = 0x01;
constexpr std::uint8_t kConsumerEdge = 0x03;  // resource consumer, edge; active high, exclusive are 0

constexpr std::uint8_t kTypeMemory = 0;
constexpr std::uint8_t kTypeIo = 1;
constexpr std::uint8_t kTypeBusNumbers = 2;
constexpr std::uint8_t kEntireRange = 0x03;    // 6.4.3.5.5, _RNG: ports with and without the lowest bits of ISA's
constexpr std::uint8_t kProducerFixed = 0x0c;  // minimum and maximum are fixed; positive decode, producer are 0

// The three sizes of address space descriptor differ in the width of the five numbers.
template <typename Number>
Bytes addressSpace(std::uint8_t tag, std::uint8_t type, std::uint8_t typeFlags, std::uint64_t first,
                   std::uint64_t last) {
  memory::ByteWriter writer;
  writer.put<std::uint8_t>(tag);
  writer.put<std::uint16_t>(3 + 5 * sizeof(Number));
  writer.put<std::uint8_t>(type);
  writer.put<std::uint8_t>(kProducerFixed);
  writer.put<std::uint8_t>(typeFlags);
  writer.put<Number>(0);  // granularity
  writer.put<Number>(static_cast<Number>(first));
  writer.put<Number>(static_cast<Number>(last));
  writer.put<Number>(0);  // translation
  writer.put<Number>(static_cast<Number>(last - first + 1));
  return writer.take();
}

}  // namespace

Bytes resourceTemplate(const std::vector<Bytes>& descriptors) {
  return buffer(join({join(descriptors), {kEndTag, 0}}));  // a checksum of 0 is right by definition
}

Bytes ioPorts(std::uint16_t first, std::uint8_t count) {
  memory::ByteWriter writer;
  writer.put<std::uint8_t>(kIoPort);
  writer.put<std::uint8_t>(kDecode16);
  writer.put<std::uint16_t>(first);  // lowest and highest base
  writer.put<std::uint16_t>(first);
  writer.put<std::uint8_t>(1);  // alignment
  writer.put<std::uint8_t>(count);
  return writer.take();
}

Bytes memory32Fixed(const memory::Range& range) {
  memory::ByteWriter writer;
  writer.put<std::uint8_t>(kMemory32Fixed);
  writer.put<std::uint16_t>(9);
  writer.put<std::uint8_t>(kReadWrite);
  writer.put<std::uint32_t>(static_cast<std::uint32_t>(range.start));
  writer.put<std::uint32_t>(static_cast<std::uint32_t>(range.bytes));
  return writer.take();
}

Bytes edgeInterrupt(std::uint32_t globalSystemInterrupt) {
  memory::ByteWriter writer;
  writer.put<std::uint8_t>(kExtendedInterrupt);
  writer.put<std::uint16_t>(6);
  writer.put<std::uint8_t>(kConsumerEdge);
  writer.put<std::uint8_t>(1);  // one interrupt
  writer.put<std::uint32_t>(globalSystemInterrupt);
  return writer.take();
}

Bytes wordBusNumbers(std::uint16_t first, std::uint16_t last) {
  return addressSpace<std::uint16_t>(kWordAddress, kTypeBusNumbers, 0, first, last);
}

Bytes wordIoWindow(const memory::Range& ports) {
  return addressSpace<std::uint16_t>(kWordAddress, kTypeIo, kEntireRange, ports.start, ports.end() - 1);
}

Bytes dwordMemoryWindow(const memory::Range& range) {
  return addressSpace<std::uint32_t>(kDWordAddress, kTypeMemory, kReadWrite, range.start, range.end() - 1);
}

Bytes qwordMemoryWindow(const memory::Range& range) {
  return addressSpace<std::uint64_t>(kQWordAddress, kTypeMemory, kReadWrite, range.start, range.end() - 1);
}

}  // namespace vmmhost::kvm::acpi::aml
