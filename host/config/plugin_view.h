// What of a configuration a plugin is given, which may be older than this host.
#pragma once

#include <capnp/dynamic.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmmhost::config {

// A field that is set, or a value of an enumeration, of which a plugin knows nothing.
struct NewerField {
  std::string path;         // as messages name it: "nics[0].attachment.network"
  std::string value;        // "direct", where the field is known and its value is what is newer
  std::uint16_t since = 0;  // the minor version of the plugin interface that brought it in
};

// The first one in `config` that came after `minor` and is not among `served`: names without the indexes of lists, and
// a value behind its field ("nics.attachment.network", "disks.cache.direct"). What has its default value counts for
// nothing, and so does what is marked keptByHost. A struct counts as soon as it is there, and what is in it for itself.
// Values that this host does not know either are validateVmConfig's to refuse. Throws Error(kInvalidArgument) for a
// configuration of more than 262144 values.
std::optional<NewerField> findNewerField(capnp::DynamicStruct::Reader config, std::uint16_t minor,
                                         const std::vector<std::string>& served);

// Gives every field that is marked keptByHost its default value.
void clearKeptByHost(capnp::DynamicStruct::Builder config);

}  // namespace vmmhost::config
