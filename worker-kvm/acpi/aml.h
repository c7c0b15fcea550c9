// Builders of ACPI Machine Language: each returns the bytes of one term or object, to be put into others. A name that
// is none, or a package beyond 2^28 bytes, is a mistake of ours: kInternal. Source: ACPI 6.5, chapter 20; rule names in
// comments are its.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vmmhost::kvm::acpi::aml {

using Bytes = std::vector<std::uint8_t>;

// One after the other: a TermList, a PackageElementList.
Bytes join(const std::vector<Bytes>& parts);

// PkgLength of a package with `contentBytes` behind the length itself: 1 to 4 bytes (20.2.4).
Bytes packageLength(std::size_t contentBytes);

// Objects.
Bytes nameString(std::string_view path);  // e.g. "\\_SB.PCI0", "^PWRB", "_CRS" (20.2.2)
Bytes integer(std::uint64_t value);       // the shortest of ZeroOp, OneOp, Byte-, Word-, DWord- and QWordConst
Bytes string(std::string_view text);      // ASCII
Bytes buffer(const Bytes& bytes);
Bytes package(const std::vector<Bytes>& elements);  // at most 255
Bytes eisaId(std::string_view id);                  // e.g. "PNP0A08" (19.3.4)
// "33db4d5b-1ff7-401c-9657-7441c03dd766": the buffer that ToUUID makes (19.6.142).
Bytes uuid(std::string_view text);

// Named objects and what is in them.
Bytes name(std::string_view path, const Bytes& object);
Bytes scope(std::string_view path, const std::vector<Bytes>& terms);
Bytes device(std::string_view path, const std::vector<Bytes>& terms);
enum class Serialize : std::uint8_t { kNo = 0, kYes = 1 };
Bytes method(std::string_view path, std::uint8_t arguments, Serialize serialize, const std::vector<Bytes>& terms);
enum class RegionSpace : std::uint8_t { kSystemMemory = 0, kSystemIo = 1 };
Bytes operationRegion(std::string_view path, RegionSpace space, std::uint64_t offset, std::uint64_t bytes);
// A field of one byte at the region's start: ByteAcc, NoLock, WriteAsZeros.
Bytes byteField(std::string_view region, std::string_view name);
Bytes createDWordField(const Bytes& source, std::uint64_t byteIndex, std::string_view name);

// Statements and expressions.
Bytes argument(std::uint8_t number);  // 0 to 6
Bytes local(std::uint8_t number);     // 0 to 7
Bytes store(const Bytes& value, const Bytes& target);
// With a NullName as target they are only a value.
Bytes bitAnd(const Bytes& left, const Bytes& right, const Bytes& target = Bytes{0x00});
Bytes bitOr(const Bytes& left, const Bytes& right, const Bytes& target = Bytes{0x00});
Bytes equal(const Bytes& left, const Bytes& right);
Bytes logicalNot(const Bytes& value);
Bytes ifTrue(const Bytes& predicate, const std::vector<Bytes>& terms);
Bytes notify(std::string_view object, std::uint64_t value);
Bytes giveBack(const Bytes& value);  // Return

}  // namespace vmmhost::kvm::acpi::aml
