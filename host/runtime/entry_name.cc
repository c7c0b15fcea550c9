#include "host/runtime/entry_name.h"

#include "host/config/vm_config.h"
#include "vmmhost/error.h"

namespace vmmhost::runtime {
namespace {

constexpr std::string_view kNetworkFolder = "network@";  // no VM's name has this character

}  // namespace

bool EntryName::isValid() const {
  try {
    validate();
    return true;
  } catch (const Error&) {
    return false;
  }
}

void EntryName::validate() const {
  if (kind == Kind::kVm) {
    config::validateVmName(text);
  } else {
    config::validateNetworkName(text);
  }
}

std::string EntryName::folder() const {
  return kind == Kind::kVm ? text : std::string(kNetworkFolder) + text;
}

const char* EntryName::noun() const noexcept {
  return kind == Kind::kVm ? "VM" : "network";
}

std::string EntryName::owner() const {
  return kind == Kind::kVm ? text : "the network " + text;
}

std::string EntryName::command(std::string_view verb) const {
  return (kind == Kind::kVm ? "vmmhost " : "vmmhost network ") + std::string(verb) + ' ' + text;
}

EntryName vmName(std::string_view text) {
  return {Kind::kVm, std::string(text)};
}

EntryName networkName(std::string_view text) {
  return {Kind::kNetwork, std::string(text)};
}

std::optional<EntryName> entryOfFolder(Kind kind, std::string_view folder) {
  if (kind == Kind::kNetwork) {
    if (!folder.starts_with(kNetworkFolder)) {
      return std::nullopt;
    }
    folder.remove_prefix(kNetworkFolder.size());
  }
  EntryName name{kind, std::string(folder)};
  return name.isValid() ? std::optional(std::move(name)) : std::nullopt;
}

}  // namespace vmmhost::runtime
