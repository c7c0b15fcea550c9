// The annotations of schemas/vm.capnp: its JSON form, and the age of its fields.
#pragma once

#include <capnp/schema.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "vmmhost/schema/vm.capnp.h"

namespace vmmhost::config {

// Cap'n Proto generates no names for annotations, only schemas::s_<id>; a test compares the ids with those.
inline constexpr std::uint64_t kSinceAnnotation = 0xd63fe621ece484ae;
inline constexpr std::uint64_t kKeptByHostAnnotation = 0xd53aac163e7c5f0b;
inline constexpr std::uint64_t kHostOnlyAnnotation = 0x87f8b240af97fc9e;
inline constexpr std::uint64_t kByteSizeAnnotation = 0xcfefc1bcfd7fd327;
inline constexpr std::uint64_t kTextFormAnnotation = 0x83a33f00dbad3223;

inline bool hasAnnotation(capnp::StructSchema::Field field, std::uint64_t id) {
  for (const auto annotation : field.getProto().getAnnotations()) {
    if (annotation.getId() == id) {
      return true;
    }
  }
  return false;
}

// The minor version of the plugin interface that a field or an enumerant came with. One that the schema gives no age is
// too new for every plugin.
template <typename Member>
std::uint16_t sinceOf(const Member& member) {
  for (const auto annotation : member.getProto().getAnnotations()) {
    if (annotation.getId() == kSinceAnnotation) {
      return annotation.getValue().getUint16();
    }
  }
  return UINT16_MAX;
}

// The field that a plain string stands for, of a struct with $textForm.
inline std::optional<capnp::StructSchema::Field> textFormField(capnp::StructSchema schema) {
  for (const auto annotation : schema.getProto().getAnnotations()) {
    if (annotation.getId() == kTextFormAnnotation) {
      return schema.getFieldByName(annotation.getValue().getText());
    }
  }
  return std::nullopt;
}

inline bool isUnionMember(capnp::StructSchema::Field field) {
  return field.getProto().getDiscriminantValue() != capnp::schema::Field::NO_DISCRIMINANT;
}

}  // namespace vmmhost::config
