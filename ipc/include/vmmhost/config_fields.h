// Every field of a configuration, one by one: a backend's test walks the schema with it, so that a field which is added
// later is served or refused by name, and never ignored in silence. For tests; header only.
#pragma once

#include <capnp/dynamic.h>
#include <capnp/message.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost {

struct ConfigField {
  // As in a configuration file, without the indexes of lists: "nics.attachment.network". A value of an enumeration is
  // an entry of its own: "disks.cache.direct".
  std::string name;
  // Gives it a value that is not its default. What it lies in is made; a list that it lies in has one item at least.
  std::function<void(capnp::DynamicStruct::Builder)> set;
  capnp::StructSchema::Field field;
  std::optional<capnp::EnumSchema::Enumerant> enumerant;
};

namespace config_fields {

using Struct = capnp::DynamicStruct::Builder;
using Field = capnp::StructSchema::Field;
using Reach = std::function<Struct(Struct root)>;  // the struct that a field lies in

inline Struct enter(Struct in, Field field) {
  return (in.has(field) ? in.get(field) : in.init(field)).as<capnp::DynamicStruct>();
}

inline Struct enterFirst(Struct in, Field field) {
  if (!in.has(field) || in.get(field).as<capnp::DynamicList>().size() == 0) {
    in.init(field, 1);
  }
  return in.get(field).as<capnp::DynamicList>()[0].as<capnp::DynamicStruct>();
}

// The first member of a union, when it holds nothing, is what a union without any member is.
inline bool isDefaultMember(Field field) {
  return field.getProto().getDiscriminantValue() == 0;
}

inline bool isUnionMember(Field field) {
  return field.getProto().getDiscriminantValue() != capnp::schema::Field::NO_DISCRIMINANT;
}

// Gives a field of a simple type another value than its default. False for a type that it does not know.
inline bool change(Struct in, Field field) {
  in.clear(field);
  switch (field.getType().which()) {
    case capnp::schema::Type::VOID:
      return true;  // chosen, which is all that it can be
    case capnp::schema::Type::BOOL:
      in.set(field, !in.get(field).as<bool>());
      return true;
    case capnp::schema::Type::INT8:
    case capnp::schema::Type::INT16:
    case capnp::schema::Type::INT32:
    case capnp::schema::Type::INT64:
      in.set(field, in.get(field).as<std::int64_t>() + 1);
      return true;
    case capnp::schema::Type::UINT8:
    case capnp::schema::Type::UINT16:
    case capnp::schema::Type::UINT32:
    case capnp::schema::Type::UINT64:
      in.set(field, in.get(field).as<std::uint64_t>() + 1);
      return true;
    case capnp::schema::Type::FLOAT32:
    case capnp::schema::Type::FLOAT64:
      in.set(field, in.get(field).as<double>() + 1);
      return true;
    case capnp::schema::Type::TEXT:
      in.set(field, "x");
      return true;
    default:
      return false;
  }
}

class Walk {
 public:
  std::vector<ConfigField> found;

  void structure(capnp::StructSchema schema, const std::string& prefix, const Reach& reach) {
    for (const auto field : schema.getFields()) {
      const std::string name = prefix + field.getProto().getName().cStr();
      const auto type = field.getType();
      if (type.isStruct()) {
        // A group says something by itself only as a member of a union.
        if (!field.getProto().isGroup() || (isUnionMember(field) && !isDefaultMember(field))) {
          add(name, field, [reach, field](Struct root) { enter(reach(root), field); });
        }
        structure(type.asStruct(), name + '.', [reach, field](Struct root) { return enter(reach(root), field); });
      } else if (type.isList() && type.asList().getElementType().isStruct()) {
        add(name, field, [reach, field](Struct root) { enterFirst(reach(root), field); });
        structure(type.asList().getElementType().asStruct(), name + '.',
                  [reach, field](Struct root) { return enterFirst(reach(root), field); });
      } else if (type.isEnum()) {
        enumeration(name, field, reach);
      } else if (!type.isVoid() || (isUnionMember(field) && !isDefaultMember(field))) {
        add(name, field, [reach, field, name](Struct root) {
          if (!change(reach(root), field)) {
            throw std::logic_error(name + " is of a type that configFields() cannot set yet");
          }
        });
      }
    }
  }

 private:
  void add(const std::string& name, Field field, std::function<void(Struct)> set,
           std::optional<capnp::EnumSchema::Enumerant> enumerant = {}) {
    found.push_back({name, std::move(set), field, enumerant});
  }

  void enumeration(const std::string& name, Field field, const Reach& reach) {
    const std::uint16_t otherwise = field.getProto().getSlot().getDefaultValue().getEnum();
    bool first = true;
    for (const auto enumerant : field.getType().asEnum().getEnumerants()) {
      if (enumerant.getOrdinal() == otherwise) {
        continue;
      }
      const auto set = [reach, field, enumerant](Struct root) {
        reach(root).set(field, capnp::DynamicEnum(enumerant));
      };
      if (first) {
        add(name, field, set);  // the field itself, by any value
        first = false;
      }
      add(name + '.' + enumerant.getProto().getName().cStr(), field, set, enumerant);
    }
  }
};

// "nics[0].attachment: not served" -> "nics.attachment"
inline std::string refusedName(const std::string& message) {
  std::string name;
  bool inIndex = false;
  for (const char character : message.substr(0, message.find(": "))) {
    inIndex = (inIndex || character == '[') && character != ']';
    if (!inIndex && character != ']') {
      name += character;
    }
  }
  return name;
}

}  // namespace config_fields

// All fields of a struct and of what is in it, in the order of the schema. Not for a struct that contains itself.
inline std::vector<ConfigField> configFields(capnp::StructSchema schema) {
  config_fields::Walk walk;
  walk.structure(schema, "", [](config_fields::Struct root) { return root; });
  return std::move(walk.found);
}

// Is this the message of a refusal that begins with the field of this name, or with one that it is part of?
inline bool refusalNames(const std::string& message, const std::string& name) {
  const std::string refused = config_fields::refusedName(message);
  return name == refused || name.starts_with(refused + '.');
}

// What a backend says about itself: with which fields and values it does what they ask for.
struct ServedFields {
  std::set<std::string> names;  // every other one is refused
  // How a field is set whose value has a form of its own, or needs another field beside it.
  std::map<std::string, std::function<void(schema::VmConfig::Builder)>> values;
};

// Gives `check`, which throws Error for what it refuses, a configuration for each field and value that vm.capnp has:
// what `prepare` makes, which the backend takes, and the one field set. Returns a line for each field that is ignored
// (not served, and not refused as unsupported by its name), that is refused though it is served, or is no field: none
// if all is well.
inline std::vector<std::string> findUnaccountedFields(const ServedFields& served,
                                                      const std::function<void(schema::VmConfig::Builder)>& prepare,
                                                      const std::function<void(schema::VmConfig::Reader)>& check) {
  std::vector<std::string> lines;
  std::set<std::string> unknown = served.names;
  for (const auto& [name, value] : served.values) {
    unknown.insert(name);
  }
  for (const ConfigField& field : configFields(capnp::Schema::from<schema::VmConfig>())) {
    unknown.erase(field.name);
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<schema::VmConfig>();
    prepare(config);
    if (const auto value = served.values.find(field.name); value != served.values.end()) {
      value->second(config);
    } else {
      field.set(config);
    }
    const bool isServed = served.names.count(field.name) != 0;
    try {
      check(config.asReader());
      if (!isServed) {
        lines.push_back(field.name + ": ignored: neither among what is served nor refused");
      }
    } catch (const Error& error) {
      if (isServed) {
        lines.push_back(field.name + ": refused, though it is among what is served: " + error.message());
      } else if (error.code() != ErrorCode::kUnsupported || !refusalNames(error.message(), field.name)) {
        lines.push_back(field.name + ": refused, but not as unsupported and by its name: " + error.message());
      }
    }
  }
  for (const std::string& name : unknown) {
    lines.push_back(name + ": there is no such field");
  }
  return lines;
}

}  // namespace vmmhost
