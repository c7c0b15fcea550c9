#include "host/config/annotations.h"
#include "host/config/json.h"
#include "host/config/json_writer.h"
#include "vmmhost/error.h"

namespace vmmhost::config {

namespace {

using capnp::DynamicEnum;
using capnp::DynamicList;
using capnp::DynamicStruct;
using capnp::DynamicValue;
using capnp::HasMode;
using capnp::StructSchema;

std::string_view view(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

class StructWriter {
 public:
  explicit StructWriter(const WriteOptions& options) : options_(options), json_(options.pretty) {}

  void object(DynamicStruct::Reader from) {
    json_.beginObject();
    for (const auto field : from.getSchema().getFields()) {
      if (isWritten(from, field)) {
        json_.key(field.getProto().getName().cStr());
        value(from.get(field));
      }
    }
    json_.endObject();
  }

  const std::string& str() const { return json_.str(); }

 private:
  bool isWritten(DynamicStruct::Reader from, StructSchema::Field field) const {
    if (hasAnnotation(field, kHostOnlyAnnotation)) {
      return false;
    }
    switch (field.getType().which()) {
      case capnp::schema::Type::INTERFACE:
      case capnp::schema::Type::ANY_POINTER:
      case capnp::schema::Type::DATA:
        return false;
      default:
        break;
    }
    if (isUnionMember(field)) {
      const auto active = from.which();
      KJ_IF_MAYBE (which, active) {
        // The first member with its default value is what a union without any member is.
        return *which == field &&
               (options_.withDefaults || field.getProto().getDiscriminantValue() != 0 || isMeaningful(from, field));
      }
      return false;
    }
    return isMeaningful(from, field);
  }

  bool isMeaningful(DynamicStruct::Reader from, StructSchema::Field field) const {
    if (field.getProto().isGroup()) {
      const auto group = from.get(field).as<DynamicStruct>();
      for (const auto inner : group.getSchema().getFields()) {
        if (isWritten(group, inner)) {
          return true;
        }
      }
      return false;
    }
    if (field.getType().isStruct()) {
      return from.has(field);  // there or not there is a difference of its own
    }
    return options_.withDefaults || from.has(field, HasMode::NON_DEFAULT);
  }

  void value(DynamicValue::Reader from) {
    switch (from.getType()) {
      case DynamicValue::VOID:
        json_.null();
        break;
      case DynamicValue::BOOL:
        json_.boolean(from.as<bool>());
        break;
      case DynamicValue::INT:
        json_.number(from.as<std::int64_t>());
        break;
      case DynamicValue::UINT:
        json_.number(from.as<std::uint64_t>());
        break;
      case DynamicValue::FLOAT:
        json_.number(from.as<double>());
        break;
      case DynamicValue::TEXT:
        json_.text(view(from.as<capnp::Text>()));
        break;
      case DynamicValue::ENUM:
        enumerant(from.as<DynamicEnum>());
        break;
      case DynamicValue::LIST:
        list(from.as<DynamicList>());
        break;
      case DynamicValue::STRUCT:
        structure(from.as<DynamicStruct>());
        break;
      default:
        throw Error(ErrorCode::kInternal, "a value that has no JSON form");
    }
  }

  void enumerant(DynamicEnum from) {
    KJ_IF_MAYBE (known, from.getEnumerant()) {
      json_.text(known->getProto().getName().cStr());
    } else {
      json_.number(std::uint64_t{from.getRaw()});
    }
  }

  void list(DynamicList::Reader from) {
    json_.beginArray();
    for (const auto item : from) {
      value(item);
    }
    json_.endArray();
  }

  void structure(DynamicStruct::Reader from) {
    const auto shortForm = textFormField(from.getSchema());
    if (shortForm) {
      bool onlyThat = true;
      for (const auto field : from.getSchema().getFields()) {
        onlyThat = onlyThat && (field == *shortForm || hasAnnotation(field, kHostOnlyAnnotation) ||
                                !from.has(field, HasMode::NON_DEFAULT));
      }
      if (onlyThat) {
        json_.text(view(from.get(*shortForm).as<capnp::Text>()));
        return;
      }
    }
    object(from);
  }

  WriteOptions options_;
  JsonWriter json_;
};

}  // namespace

std::string writeJson(DynamicStruct::Reader from, const WriteOptions& options) {
  StructWriter writer(options);
  writer.object(from);
  return writer.str();
}

}  // namespace vmmhost::config
