#include "host/config/plugin_view.h"

#include <algorithm>
#include <cstddef>

#include "host/config/annotations.h"
#include "vmmhost/error.h"

namespace vmmhost::config {

namespace {

using capnp::DynamicEnum;
using capnp::DynamicList;
using capnp::DynamicStruct;
using capnp::DynamicValue;
using capnp::HasMode;
using capnp::StructSchema;

constexpr std::size_t kMaxValues = std::size_t{1} << 18;

// Where a value is: as messages show it, and as a plugin's probe names it.
struct Place {
  std::string path;
  std::string name;

  Place member(const char* field) const {
    const char* separator = path.empty() ? "" : ".";
    return {path + separator + field, name + separator + field};
  }
  Place item(std::size_t index) const { return {path + '[' + std::to_string(index) + ']', name}; }
};

// A member of a union that is not the chosen one is not there.
bool isThere(DynamicStruct::Reader from, StructSchema::Field field) {
  if (!isUnionMember(field)) {
    return true;
  }
  const auto chosen = from.which();
  KJ_IF_MAYBE (member, chosen) {
    return *member == field;
  }
  return false;
}

// Of a field that is there: does it say anything other than its default? A group says nothing by itself.
bool isSet(DynamicStruct::Reader from, StructSchema::Field field) {
  const auto proto = field.getProto();
  if (isUnionMember(field) && proto.getDiscriminantValue() != 0) {
    return true;
  }
  if (proto.isGroup()) {
    return false;
  }
  switch (field.getType().which()) {
    // For what lies behind a pointer has() tells only whether the pointer is there.
    case capnp::schema::Type::TEXT:
      return from.get(field).as<capnp::Text>() != proto.getSlot().getDefaultValue().getText();
    case capnp::schema::Type::DATA:
      return from.get(field).as<capnp::Data>() != proto.getSlot().getDefaultValue().getData();
    case capnp::schema::Type::LIST:
      return from.get(field).as<DynamicList>().size() != 0;
    default:
      return from.has(field, HasMode::NON_DEFAULT);
  }
}

class Finder {
 public:
  Finder(std::uint16_t minor, const std::vector<std::string>& served) : minor_(minor), served_(served) {}

  std::optional<NewerField> structure(DynamicStruct::Reader from, const Place& place) {
    for (const auto field : from.getSchema().getFields()) {
      if (hasAnnotation(field, kKeptByHostAnnotation) || !isThere(from, field)) {
        continue;
      }
      const bool set = isSet(from, field);
      if (!set && !field.getProto().isGroup()) {
        continue;
      }
      const Place here = place.member(field.getProto().getName().cStr());
      if (set && isNewer(sinceOf(field), here.name)) {
        return NewerField{here.path, {}, sinceOf(field)};
      }
      if (auto found = value(from.get(field), here)) {
        return found;
      }
    }
    return std::nullopt;
  }

 private:
  bool isNewer(std::uint16_t since, const std::string& name) const {
    return since > minor_ && std::find(served_.begin(), served_.end(), name) == served_.end();
  }

  std::optional<NewerField> value(const DynamicValue::Reader& from, const Place& place) {
    if (++values_ > kMaxValues) {
      throw Error(ErrorCode::kInvalidArgument,
                  place.path + ": the configuration has more than " + std::to_string(kMaxValues) + " values")
          .withField(place.path);
    }
    switch (from.getType()) {
      case DynamicValue::ENUM:
        return enumerant(from.as<DynamicEnum>(), place);
      case DynamicValue::LIST:
        return list(from.as<DynamicList>(), place);
      case DynamicValue::STRUCT:
        return structure(from.as<DynamicStruct>(), place);
      default:
        return std::nullopt;
    }
  }

  std::optional<NewerField> enumerant(DynamicEnum from, const Place& place) const {
    const auto known = from.getEnumerant();
    KJ_IF_MAYBE (enumerant, known) {
      const char* name = enumerant->getProto().getName().cStr();
      if (isNewer(sinceOf(*enumerant), place.member(name).name)) {
        return NewerField{place.path, name, sinceOf(*enumerant)};
      }
    }
    return std::nullopt;
  }

  std::optional<NewerField> list(DynamicList::Reader from, const Place& place) {
    std::size_t index = 0;
    for (const auto item : from) {
      if (auto found = value(item, place.item(index++))) {
        return found;
      }
    }
    return std::nullopt;
  }

  std::uint16_t minor_;
  const std::vector<std::string>& served_;
  std::size_t values_ = 0;
};

}  // namespace

std::optional<NewerField> findNewerField(DynamicStruct::Reader config, std::uint16_t minor,
                                         const std::vector<std::string>& served) {
  return Finder(minor, served).structure(config, {});
}

void clearKeptByHost(DynamicStruct::Builder config) {
  for (const auto field : config.getSchema().getFields()) {
    const auto type = field.getType();
    if (hasAnnotation(field, kKeptByHostAnnotation)) {
      config.clear(field);
    } else if (!config.has(field)) {
      continue;
    } else if (type.isStruct()) {
      clearKeptByHost(config.get(field).as<DynamicStruct>());
    } else if (type.isList() && type.asList().getElementType().isStruct()) {
      auto items = config.get(field).as<DynamicList>();
      for (capnp::uint index = 0; index < items.size(); ++index) {
        clearKeptByHost(items[index].as<DynamicStruct>());
      }
    }
  }
}

}  // namespace vmmhost::config
