#include "worker-kvm/acpi/aml.h"

#include <array>

#include "vmmhost/error.h"

namespace vmmhost::kvm::acpi::aml {

namespace {

// 20.3, table 20.2.
constexpr std::uint8_t kZeroOp = 0x00;
constexpr std::uint8_t kOneOp = 0x01;
constexpr std::uint8_t kNameOp = 0x08;
constexpr std::uint8_t kBytePrefix = 0x0a;
constexpr std::uint8_t kWordPrefix = 0x0b;
constexpr std::uint8_t kDWordPrefix = 0x0c;
constexpr std::uint8_t kStringPrefix = 0x0d;
constexpr std::uint8_t kQWordPrefix = 0x0e;
constexpr std::uint8_t kScopeOp = 0x10;
constexpr std::uint8_t kBufferOp = 0x11;
constexpr std::uint8_t kPackageOp = 0x12;
constexpr std::uint8_t kMethodOp = 0x14;
constexpr std::uint8_t kDualNamePrefix = 0x2e;
constexpr std::uint8_t kMultiNamePrefix = 0x2f;
constexpr std::uint8_t kExtOpPrefix = 0x5b;
constexpr std::uint8_t kRegionOp = 0x80;  // after ExtOpPrefix
constexpr std::uint8_t kFieldOp = 0x81;   // after ExtOpPrefix
constexpr std::uint8_t kDeviceOp = 0x82;  // after ExtOpPrefix
constexpr std::uint8_t kLocal0Op = 0x60;
constexpr std::uint8_t kArgument0Op = 0x68;
constexpr std::uint8_t kStoreOp = 0x70;
constexpr std::uint8_t kAndOp = 0x7b;
constexpr std::uint8_t kOrOp = 0x7d;
constexpr std::uint8_t kNotifyOp = 0x86;
constexpr std::uint8_t kCreateDWordFieldOp = 0x8a;
constexpr std::uint8_t kLogicalNotOp = 0x92;
constexpr std::uint8_t kLogicalEqualOp = 0x93;
constexpr std::uint8_t kIfOp = 0xa0;
constexpr std::uint8_t kReturnOp = 0xa4;
constexpr std::uint8_t kNullName = 0x00;

// FieldFlags (20.2.5.2): AccessType ByteAcc, NoLock, UpdateRule WriteAsZeros.
constexpr std::uint8_t kByteFieldFlags = 0x01 | 2U << 5;

constexpr std::size_t kMaxPackageBytes = (std::size_t{1} << 28) - 1;
constexpr std::size_t kSegmentBytes = 4;

[[noreturn]] void mistake(const std::string& text) {
  throw Error(ErrorCode::kInternal, "ACPI: " + text);
}

void append(Bytes& target, const Bytes& more) {
  target.insert(target.end(), more.begin(), more.end());
}

Bytes littleEndian(std::uint64_t value, std::size_t bytes) {
  Bytes result(bytes);
  for (std::size_t index = 0; index < bytes; ++index) {
    result[index] = static_cast<std::uint8_t>(value >> (8 * index));
  }
  return result;
}

// Operation code, PkgLength, content.
Bytes packaged(const Bytes& operation, const std::vector<Bytes>& content) {
  const Bytes inside = join(content);
  return join({operation, packageLength(inside.size()), inside});
}

bool isLeadNameCharacter(char character) {
  return (character >= 'A' && character <= 'Z') || character == '_';
}

Bytes nameSegment(std::string_view text) {
  bool sound = !text.empty() && text.size() <= kSegmentBytes && isLeadNameCharacter(text.front());
  for (const char character : text) {
    sound = sound && (isLeadNameCharacter(character) || (character >= '0' && character <= '9'));
  }
  if (!sound) {
    mistake("'" + std::string(text) + "' is no name segment");
  }
  Bytes segment(text.begin(), text.end());
  segment.resize(kSegmentBytes, '_');
  return segment;
}

std::uint8_t hexadecimalDigit(char character) {
  if (character >= '0' && character <= '9') {
    return static_cast<std::uint8_t>(character - '0');
  }
  if (character >= 'A' && character <= 'F') {
    return static_cast<std::uint8_t>(character - 'A' + 10);
  }
  if (character >= 'a' && character <= 'f') {
    return static_cast<std::uint8_t>(character - 'a' + 10);
  }
  mistake("a character that is no hexadecimal digit");
}

}  // namespace

Bytes join(const std::vector<Bytes>& parts) {
  Bytes result;
  for (const Bytes& part : parts) {
    append(result, part);
  }
  return result;
}

Bytes packageLength(std::size_t contentBytes) {
  // The length counts its own bytes. One byte holds 6 bits of it, more hold 4 bits and 8 in each that follows.
  if (contentBytes + 1 < (1U << 6)) {
    return {static_cast<std::uint8_t>(contentBytes + 1)};
  }
  for (std::size_t following = 1; following <= 3; ++following) {
    const std::size_t length = contentBytes + 1 + following;
    if (length < std::size_t{1} << (4 + 8 * following)) {
      Bytes result = {static_cast<std::uint8_t>(following << 6 | (length & 0xf))};
      append(result, littleEndian(length >> 4, following));
      return result;
    }
  }
  mistake("a package of more than " + std::to_string(kMaxPackageBytes) + " bytes");
}

Bytes nameString(std::string_view path) {
  Bytes result;
  if (!path.empty() && path.front() == '\\') {
    result.push_back('\\');
    path.remove_prefix(1);
  }
  while (result.size() < UINT8_MAX && !path.empty() && path.front() == '^' && (result.empty() || result[0] == '^')) {
    result.push_back('^');
    path.remove_prefix(1);
  }
  std::vector<Bytes> segments;
  while (!path.empty()) {
    const std::size_t end = path.find('.');
    segments.push_back(nameSegment(path.substr(0, end)));
    if (end == path.size() - 1) {
      mistake("a name that ends in a dot");
    }
    path.remove_prefix(end == std::string_view::npos ? path.size() : end + 1);
  }
  if (segments.empty()) {
    result.push_back(kNullName);
  } else if (segments.size() == 2) {
    result.push_back(kDualNamePrefix);
  } else if (segments.size() > UINT8_MAX) {
    mistake("a name of more than 255 segments");
  } else if (segments.size() > 2) {
    append(result, {kMultiNamePrefix, static_cast<std::uint8_t>(segments.size())});
  }
  append(result, join(segments));
  return result;
}

Bytes integer(std::uint64_t value) {
  if (value == 0) {
    return {kZeroOp};
  }
  if (value == 1) {
    return {kOneOp};
  }
  if (value <= UINT8_MAX) {
    return join({{kBytePrefix}, littleEndian(value, 1)});
  }
  if (value <= UINT16_MAX) {
    return join({{kWordPrefix}, littleEndian(value, 2)});
  }
  if (value <= UINT32_MAX) {
    return join({{kDWordPrefix}, littleEndian(value, 4)});
  }
  return join({{kQWordPrefix}, littleEndian(value, 8)});
}

Bytes string(std::string_view text) {
  Bytes result = {kStringPrefix};
  for (const char character : text) {
    if (character < 0x20 || character == 0x7f) {
      mistake("a string with a character that is not printable ASCII");
    }
    result.push_back(static_cast<std::uint8_t>(character));
  }
  result.push_back(0);
  return result;
}

Bytes buffer(const Bytes& bytes) {
  return packaged({kBufferOp}, {integer(bytes.size()), bytes});
}

Bytes package(const std::vector<Bytes>& elements) {
  if (elements.size() > UINT8_MAX) {
    mistake("a package of more than 255 elements");
  }
  return packaged({kPackageOp}, {{static_cast<std::uint8_t>(elements.size())}, join(elements)});
}

Bytes eisaId(std::string_view id) {
  if (id.size() != 7) {
    mistake("'" + std::string(id) + "' is no EISA identifier");
  }
  // Three letters of 5 bits each, four digits: big-endian (19.3.4).
  std::uint32_t value = 0;
  for (const char character : id.substr(0, 3)) {
    if (character < 'A' || character > 'Z') {
      mistake("'" + std::string(id) + "' is no EISA identifier");
    }
    value = value << 5 | static_cast<std::uint32_t>(character - 'A' + 1);
  }
  for (const char character : id.substr(3)) {
    value = value << 4 | hexadecimalDigit(character);
  }
  // Always a DWordConst, as iasl has it.
  return {kDWordPrefix, static_cast<std::uint8_t>(value >> 24), static_cast<std::uint8_t>(value >> 16),
          static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
}

Bytes uuid(std::string_view text) {
  // Where byte n of the buffer stands in the text (19.6.142): the first three groups are little-endian.
  constexpr std::array<std::size_t, 16> kPlaces = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
  if (text.size() != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-') {
    mistake("'" + std::string(text) + "' is no UUID");
  }
  Bytes bytes;
  for (const std::size_t place : kPlaces) {
    bytes.push_back(static_cast<std::uint8_t>(hexadecimalDigit(text[place]) << 4 | hexadecimalDigit(text[place + 1])));
  }
  return buffer(bytes);
}

Bytes name(std::string_view path, const Bytes& object) {
  return join({{kNameOp}, nameString(path), object});
}

Bytes scope(std::string_view path, const std::vector<Bytes>& terms) {
  return packaged({kScopeOp}, {nameString(path), join(terms)});
}

Bytes device(std::string_view path, const std::vector<Bytes>& terms) {
  return packaged({kExtOpPrefix, kDeviceOp}, {nameString(path), join(terms)});
}

Bytes method(std::string_view path, std::uint8_t arguments, Serialize serialize, const std::vector<Bytes>& terms) {
  if (arguments > 7) {
    mistake("a method of more than 7 arguments");
  }
  const auto flags = static_cast<std::uint8_t>(arguments | static_cast<std::uint8_t>(serialize) << 3);
  return packaged({kMethodOp}, {nameString(path), {flags}, join(terms)});
}

Bytes operationRegion(std::string_view path, RegionSpace space, std::uint64_t offset, std::uint64_t bytes) {
  return join({{kExtOpPrefix, kRegionOp},
               nameString(path),
               {static_cast<std::uint8_t>(space)},
               integer(offset),
               integer(bytes)});
}

Bytes byteField(std::string_view region, std::string_view name) {
  // NamedField: the length is of the field, in bits, and does not count itself.
  return packaged({kExtOpPrefix, kFieldOp}, {nameString(region), {kByteFieldFlags}, nameSegment(name), {8}});
}

Bytes createDWordField(const Bytes& source, std::uint64_t byteIndex, std::string_view name) {
  return join({{kCreateDWordFieldOp}, source, integer(byteIndex), nameString(name)});
}

Bytes argument(std::uint8_t number) {
  return {static_cast<std::uint8_t>(kArgument0Op + number)};
}

Bytes local(std::uint8_t number) {
  return {static_cast<std::uint8_t>(kLocal0Op + number)};
}

Bytes store(const Bytes& value, const Bytes& target) {
  return join({{kStoreOp}, value, target});
}

Bytes bitAnd(const Bytes& left, const Bytes& right, const Bytes& target) {
  return join({{kAndOp}, left, right, target});
}

Bytes bitOr(const Bytes& left, const Bytes& right, const Bytes& target) {
  return join({{kOrOp}, left, right, target});
}

Bytes equal(const Bytes& left, const Bytes& right) {
  return join({{kLogicalEqualOp}, left, right});
}

Bytes logicalNot(const Bytes& value) {
  return join({{kLogicalNotOp}, value});
}

Bytes ifTrue(const Bytes& predicate, const std::vector<Bytes>& terms) {
  return packaged({kIfOp}, {predicate, join(terms)});
}

Bytes notify(std::string_view object, std::uint64_t value) {
  return join({{kNotifyOp}, nameString(object), integer(value)});
}

Bytes giveBack(const Bytes& value) {
  return join({{kReturnOp}, value});
}

}  // namespace vmmhost::kvm::acpi::aml
