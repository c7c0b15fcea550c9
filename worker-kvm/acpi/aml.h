// Builders of ACPI Machine Language: each returns the bytes of one term or object, to be put into others.
// Source: ACPI 6.5, chapter 20; rule names in comments are its.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace vmmhost::kvm::acpi::aml {

using Bytes = std::vector<std::uint8_t>;

}  // namespace vmmhost::kvm::acpi::aml
