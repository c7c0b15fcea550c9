#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "host/base/text.h"
#include "host/config/annotations.h"
#include "host/config/json.h"
#include "vmmhost/error.h"

namespace vmmhost::config {

namespace {

using capnp::DynamicList;
using capnp::DynamicStruct;
using capnp::DynamicValue;
using capnp::StructSchema;
using Json = nlohmann::json;

constexpr std::size_t kMaxTextBytes = std::size_t{4} << 20;
constexpr std::size_t kMaxDepth = 64;
constexpr std::uint32_t kMaxListItems = 65536;  // a text of "{},{},..." is a fifteenth of what it makes

// One step from an object or array to what is in it.
struct Step {
  bool isArray = false;
  std::uint32_t index = 0;
  std::string key;
  std::size_t list = 0;  // an array's place among all arrays of the text
};

std::string pathText(const std::vector<Step>& steps) {
  std::string path;
  for (const Step& step : steps) {
    if (step.isArray) {
      path += '[' + std::to_string(step.index) + ']';
    } else if (!step.key.empty()) {
      path += path.empty() ? "" : ".";
      path += printable(step.key, 64);
    }
  }
  return path;
}

[[noreturn]] void refuse(std::string_view source, const std::string& path, const std::string& message,
                         std::string hint = {}) {
  throw Error(ErrorCode::kInvalidArgument, printable(source) + ": " + (path.empty() ? "" : path + ": ") + message,
              std::move(hint))
      .withField(path);
}

// "source:line:column" of a byte of the text.
std::string place(std::string_view source, std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t lineStart = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return std::string(source) + ':' + std::to_string(line) + ':' + std::to_string(before.size() - lineStart + 1);
}

// First pass: is this JSON at all, how deep is it, and how long are its arrays (lists are made in their final length).
class Survey {
 public:
  Survey(std::string_view source, std::string_view text) : source_(source), text_(text) {}

  const std::vector<std::uint32_t>& lengths() const { return lengths_; }

  bool null() { return value(); }
  bool boolean(bool) { return value(); }
  bool number_integer(std::int64_t) { return value(); }
  bool number_unsigned(std::uint64_t) { return value(); }
  bool number_float(double, const std::string&) { return value(); }
  bool string(std::string&) { return value(); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(false); }
  bool start_array(std::size_t) { return open(true); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& key) {
    steps_.back().key = key;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
    // The library counts the bytes that it has read, and says the place again in a prefix of its own.
    std::string_view what = error.what();
    for (const std::string_view prefix : {"[json.exception.", "] ", "parse error", ": "}) {
      if (const auto found = what.find(prefix); found != std::string_view::npos) {
        what.remove_prefix(found + prefix.size());
      }
    }
    refuse(place(source_, text_, position == 0 ? 0 : position - 1), pathText(steps_), printable(what, 240));
  }

 private:
  bool value() {
    if (!steps_.empty() && steps_.back().isArray) {
      Step& step = steps_.back();
      ++step.index;
      if (++lengths_[step.list] > kMaxListItems) {
        --step.index;
        refuse(source_, pathText(steps_), "more than " + std::to_string(kMaxListItems) + " items in one list");
      }
    }
    return true;
  }
  bool open(bool isArray) {
    if (steps_.size() == kMaxDepth) {
      refuse(source_, pathText(steps_), "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    steps_.push_back({isArray, 0, {}, lengths_.size()});
    if (isArray) {
      lengths_.push_back(0);
    }
    return true;
  }
  bool close() {
    steps_.pop_back();
    return value();
  }

  std::string_view source_;
  std::string_view text_;
  std::vector<Step> steps_;
  std::vector<std::uint32_t> lengths_;
};

const char* kindName(const capnp::Type& type) {
  switch (type.which()) {
    case capnp::schema::Type::VOID:
      return "null";
    case capnp::schema::Type::BOOL:
      return "true or false";
    case capnp::schema::Type::INT8:
    case capnp::schema::Type::INT16:
    case capnp::schema::Type::INT32:
    case capnp::schema::Type::INT64:
    case capnp::schema::Type::UINT8:
    case capnp::schema::Type::UINT16:
    case capnp::schema::Type::UINT32:
    case capnp::schema::Type::UINT64:
      return "an integer";
    case capnp::schema::Type::FLOAT32:
    case capnp::schema::Type::FLOAT64:
      return "a number";
    case capnp::schema::Type::TEXT:
    case capnp::schema::Type::ENUM:
      return "a string";
    case capnp::schema::Type::LIST:
      return "an array";
    case capnp::schema::Type::STRUCT:
      return "an object";
    default:
      return "nothing";
  }
}

// An integer of JSON: -2^63 to 2^64 - 1.
struct Integer {
  bool negative = false;
  std::uint64_t bits = 0;  // two's complement

  std::string text() const { return negative ? std::to_string(static_cast<std::int64_t>(bits)) : std::to_string(bits); }
  template <typename T>
  bool fits() const {
    if (negative) {
      return static_cast<std::int64_t>(bits) >= static_cast<std::int64_t>(std::numeric_limits<T>::min());
    }
    return bits <= static_cast<std::uint64_t>(std::numeric_limits<T>::max());
  }
};

std::string listEnumerants(capnp::EnumSchema schema) {
  std::string list;
  for (const auto enumerant : schema.getEnumerants()) {
    list += (list.empty() ? "" : ", ") + std::string(enumerant.getProto().getName().cStr());
  }
  return list;
}

// Second pass: fills the structure, guided by its schema.
class Filler {
 public:
  Filler(std::string_view source, const std::vector<std::uint32_t>& lengths, DynamicStruct::Builder root)
      : source_(source), lengths_(lengths), root_(root) {}

  bool null() {
    const Slot slot = target("null");
    if (!slot.type.isVoid()) {
      wrongType(slot.type, slot.field, "null");
    }
    set(slot, capnp::VOID);
    return done();
  }

  bool boolean(bool value) {
    const Slot slot = target(value ? "true" : "false");
    if (!slot.type.isBool()) {
      wrongType(slot.type, slot.field, value ? "true" : "false");
    }
    set(slot, value);
    return done();
  }

  bool number_integer(std::int64_t value) { return integer({value < 0, static_cast<std::uint64_t>(value)}); }
  bool number_unsigned(std::uint64_t value) { return integer({false, value}); }

  bool number_float(double value, const std::string& text) {
    const Slot slot = target("a number");
    if (slot.type.isFloat32() && std::isfinite(static_cast<float>(value))) {
      set(slot, static_cast<float>(value));
    } else if (slot.type.isFloat64()) {
      set(slot, value);
    } else if (isInteger(slot.type) && text.find_first_of(".eE") == std::string::npos) {
      outOfRange(text);
    } else {
      wrongType(slot.type, slot.field, "the number " + printable(text, 40));
    }
    return done();
  }

  bool string(std::string& text) {
    const Slot slot = target("a string");
    switch (slot.type.which()) {
      case capnp::schema::Type::TEXT:
        set(slot, checkedText(text));
        break;
      case capnp::schema::Type::ENUM: {
        const auto schema = slot.type.asEnum();
        KJ_IF_MAYBE (enumerant, schema.findEnumerantByName(kj::StringPtr(text.c_str(), text.size()))) {
          set(slot, capnp::DynamicEnum(*enumerant));
        } else {
          refuse(source_, path(), "there is no " + inQuotes(text) + "; expected one of " + listEnumerants(schema));
        }
        break;
      }
      case capnp::schema::Type::STRUCT: {
        const auto field = textFormField(slot.type.asStruct());
        if (!field) {
          wrongType(slot.type, slot.field, "a string");
        }
        initStruct(slot).set(*field, checkedText(text));
        break;
      }
      default:
        if (slot.field && hasAnnotation(*slot.field, kByteSizeAnnotation) && slot.type.isUInt64()) {
          const std::string field = path();
          set(slot, aboutField(field, [&] { return parseByteSize(printable(source_) + ": " + field, text); }));
        } else {
          wrongType(slot.type, slot.field, "a string");
        }
    }
    return done();
  }

  bool binary(Json::binary_t&) { return false; }

  bool start_object(std::size_t) {
    if (frames_.empty()) {
      push(root_, {});
      return true;
    }
    const Slot slot = target("an object");
    if (!slot.type.isStruct()) {
      wrongType(slot.type, slot.field, "an object");
    }
    push(initStruct(slot), {});
    return true;
  }

  bool start_array(std::size_t) {
    const Slot slot = target("an array");
    const std::uint32_t length = lengths_[nextLength_++];
    if (!slot.type.isList()) {
      wrongType(slot.type, slot.field, "an array");
    }
    Frame& parent = frames_.back();
    DynamicValue::Builder list = slot.field ? std::get<DynamicStruct::Builder>(parent.into).init(*slot.field, length)
                                            : std::get<DynamicList::Builder>(parent.into).init(slot.index, length);
    Step step;
    step.isArray = true;
    push(list.as<DynamicList>(), step);
    return true;
  }

  bool end_object() {
    pop();
    return done();
  }
  bool end_array() {
    pop();
    return done();
  }

  bool key(std::string& key) {
    Frame& frame = frames_.back();
    steps_.back().key = key;
    const StructSchema schema = std::get<DynamicStruct::Builder>(frame.into).getSchema();
    KJ_IF_MAYBE (field, schema.findFieldByName(kj::StringPtr(key.c_str(), key.size()))) {
      if (hasAnnotation(*field, kHostOnlyAnnotation)) {
        refuse(source_, path(), "is filled in by the host and cannot be configured");
      }
      if (frame.seen[field->getIndex()]) {
        refuse(source_, path(), "is there twice");
      }
      frame.seen[field->getIndex()] = true;
      if (isUnionMember(*field)) {
        if (!frame.unionMember.empty()) {
          refuse(
              source_, path(),
              "only one member of this union can be given, and " + inQuotes(frame.unionMember) + " is there already");
        }
        frame.unionMember = key;
      }
      frame.field = *field;
    } else {
      std::string known;
      for (const auto candidate : schema.getFields()) {
        if (!hasAnnotation(candidate, kHostOnlyAnnotation)) {
          known += (known.empty() ? "" : ", ") + std::string(candidate.getProto().getName().cStr());
        }
      }
      refuse(source_, path(), "there is no such member", "members here: " + known);
    }
    return true;
  }

  // The first pass has seen the whole text.
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    throw Error(ErrorCode::kInternal, std::string("JSON read a second time is wrong: ") + error.what());
  }

 private:
  struct Frame {
    std::variant<DynamicStruct::Builder, DynamicList::Builder> into;
    kj::Maybe<StructSchema::Field> field;  // of an object: where the next value goes
    std::vector<bool> seen;
    std::string unionMember;
  };
  // Where a value goes: a field of an object or an item of a list.
  struct Slot {
    capnp::Type type;
    std::optional<StructSchema::Field> field;
    std::uint32_t index = 0;
  };

  std::string path() const { return pathText(steps_); }

  void push(DynamicStruct::Builder into, Step step) {
    const std::size_t fields = into.getSchema().getFields().size();
    frames_.push_back({into, nullptr, std::vector<bool>(fields), {}});
    steps_.push_back(std::move(step));
  }
  void push(DynamicList::Builder into, Step step) {
    frames_.push_back({into, nullptr, {}, {}});
    steps_.push_back(std::move(step));
  }
  void pop() {
    frames_.pop_back();
    steps_.pop_back();
  }
  bool done() {
    if (!steps_.empty()) {
      Step& step = steps_.back();
      step.isArray ? static_cast<void>(++step.index) : step.key.clear();
    }
    return true;
  }

  Slot target(const char* found) {
    if (frames_.empty()) {
      refuse(source_, "", std::string("expected an object, found ") + found);
    }
    Frame& frame = frames_.back();
    if (auto* list = std::get_if<DynamicList::Builder>(&frame.into)) {
      return {list->getSchema().getElementType(), std::nullopt, steps_.back().index};
    }
    KJ_IF_MAYBE (field, frame.field) {
      return {field->getType(), *field, 0};
    }
    throw Error(ErrorCode::kInternal, "a JSON value without a key");
  }

  template <typename T>
  void set(const Slot& slot, T&& value) {
    Frame& frame = frames_.back();
    if (slot.field) {
      std::get<DynamicStruct::Builder>(frame.into).set(*slot.field, DynamicValue::Reader(value));
    } else {
      std::get<DynamicList::Builder>(frame.into).set(slot.index, DynamicValue::Reader(value));
    }
  }

  DynamicStruct::Builder initStruct(const Slot& slot) {
    Frame& frame = frames_.back();
    if (slot.field) {
      return std::get<DynamicStruct::Builder>(frame.into).init(*slot.field).as<DynamicStruct>();
    }
    return std::get<DynamicList::Builder>(frame.into)[slot.index].as<DynamicStruct>();
  }

  capnp::Text::Reader checkedText(const std::string& text) const {
    if (text.find('\0') != std::string::npos) {
      refuse(source_, path(), "text with a NUL character in it");
    }
    return {text.c_str(), text.size()};
  }

  static bool isInteger(const capnp::Type& type) { return std::string_view(kindName(type)) == "an integer"; }

  bool integer(const Integer& value) {
    const Slot slot = target("a number");
    switch (slot.type.which()) {
      case capnp::schema::Type::INT8:
        setInteger<std::int8_t>(slot, value);
        break;
      case capnp::schema::Type::INT16:
        setInteger<std::int16_t>(slot, value);
        break;
      case capnp::schema::Type::INT32:
        setInteger<std::int32_t>(slot, value);
        break;
      case capnp::schema::Type::INT64:
        setInteger<std::int64_t>(slot, value);
        break;
      case capnp::schema::Type::UINT8:
        setInteger<std::uint8_t>(slot, value);
        break;
      case capnp::schema::Type::UINT16:
        setInteger<std::uint16_t>(slot, value);
        break;
      case capnp::schema::Type::UINT32:
        setInteger<std::uint32_t>(slot, value);
        break;
      case capnp::schema::Type::UINT64:
        setInteger<std::uint64_t>(slot, value);
        break;
      case capnp::schema::Type::FLOAT32:
        setFloating<float>(slot, value);
        break;
      case capnp::schema::Type::FLOAT64:
        setFloating<double>(slot, value);
        break;
      default:
        wrongType(slot.type, slot.field, "the number " + value.text());
    }
    return done();
  }

  template <typename T>
  void setInteger(const Slot& slot, const Integer& value) {
    if (!value.fits<T>()) {
      outOfRange(value.text(), std::to_string(std::numeric_limits<T>::min()) + " to " +
                                   std::to_string(std::numeric_limits<T>::max()));
    }
    set(slot, static_cast<T>(value.bits));
  }

  template <typename T>
  void setFloating(const Slot& slot, const Integer& value) {
    constexpr std::uint64_t kExact = std::uint64_t{1} << std::numeric_limits<T>::digits;
    const std::uint64_t magnitude = value.negative ? 0 - value.bits : value.bits;
    if (magnitude > kExact) {
      refuse(source_, path(), "the number " + value.text() + " has too many digits to be kept exactly");
    }
    set(slot, value.negative ? -static_cast<T>(magnitude) : static_cast<T>(magnitude));
  }

  [[noreturn]] void outOfRange(const std::string& number, const std::string& range = {}) const {
    refuse(source_, path(),
           "the number " + printable(number, 40) + " is out of range" + (range.empty() ? "" : "; expected " + range));
  }

  [[noreturn]] void wrongType(const capnp::Type& type, const std::optional<StructSchema::Field>& field,
                              const std::string& found) const {
    std::string expected = kindName(type);
    if (field && hasAnnotation(*field, kByteSizeAnnotation)) {
      expected = "a number of bytes or a size such as \"512M\"";
    } else if (type.isStruct() && textFormField(type.asStruct())) {
      expected = "a string or an object";
    }
    refuse(source_, path(), "expected " + expected + ", found " + found);
  }

  std::string_view source_;
  const std::vector<std::uint32_t>& lengths_;
  std::size_t nextLength_ = 0;
  DynamicStruct::Builder root_;
  std::vector<Frame> frames_;
  std::vector<Step> steps_;
};

}  // namespace

void parseJson(std::string_view source, std::string_view text, DynamicStruct::Builder into) {
  if (text.size() > kMaxTextBytes) {
    refuse(source, "", "JSON of " + std::to_string(text.size()) + " bytes is over the limit of 4 MiB");
  }
  // The library takes a NUL byte for the end of the text, and whatever follows it would go unread.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    refuse(place(source, text, nul), "", "a NUL byte, which JSON cannot have");
  }
  Survey survey(source, text);
  Json::sax_parse(text.begin(), text.end(), &survey);
  Filler filler(source, survey.lengths(), into);
  Json::sax_parse(text.begin(), text.end(), &filler);
}

}  // namespace vmmhost::config
