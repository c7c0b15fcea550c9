// What an entry of the runtime and of the state folder is of, and where in them it is.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace vmmhost::runtime {

// Each kind has names of its own: a VM and a network may be called the same, and know nothing of each other.
enum class Kind { kVm, kNetwork };

// A value: a name from outside may be anything, and is checked where it is used.
struct EntryName {
  Kind kind = Kind::kVm;
  std::string text;

  bool operator==(const EntryName&) const = default;

  bool isValid() const;
  // Throws kInvalidArgument that shows the name. What a VM can be called, a network can.
  void validate() const;

  // The name of its folder in the runtime folder and in the state folder, which its control groups begin with as well.
  // That of a VM is its name, as it was when there was nothing else. That of a network no VM can be called, so that a
  // command that knows no networks passes over it.
  std::string folder() const;

  // For messages.
  const char* noun() const noexcept;                 // "VM", "network"
  std::string owner() const;                         // "NAME", "the network NAME": whose supervisor, whose socket
  std::string command(std::string_view verb) const;  // "vmmhost VERB NAME", "vmmhost network VERB NAME"
};

EntryName vmName(std::string_view text);
EntryName networkName(std::string_view text);

// The entry of this kind that has the folder; nothing if none can have it.
std::optional<EntryName> entryOfFolder(Kind kind, std::string_view folder);

}  // namespace vmmhost::runtime
