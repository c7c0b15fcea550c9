#include "host/plugin/library.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <cerrno>

namespace vmmhost::plugin {
namespace {

// The loader recognises what it has loaded by its path first, and nothing is unloaded: a second plugin under a
// descriptor number that was used before would be taken for the first one. So the path tells files apart by itself:
// the bits of device and inode are spelled as "/" and "/./", which lead to the same place. The inode cannot be used
// again while the file is mapped.
std::string uniqueDescriptorPath(int descriptor) {
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) {
    throw systemError("looking at a plugin file", errno);
  }
  std::string path = "/proc/self/fd";
  for (const std::uint64_t value : {std::uint64_t{status.st_dev}, std::uint64_t{status.st_ino}}) {
    for (int bit = 0; bit < 64; ++bit) {
      path += (value >> bit & 1) != 0 ? "/." : "/";
    }
  }
  return path + '/' + std::to_string(descriptor);
}

Error unfit(const std::string& name, const std::string& why, const std::string& hint = {}) {
  return backendError(name, Error(ErrorCode::kUnavailable, why, hint));
}

void checkAbi(const vmmhost_plugin* plugin, const std::string& name) {
  // The size and the ABI are where they are in every version.
  if (!VMMHOST_HAS_FIELD(plugin, vmmhost_plugin, abi)) {
    throw unfit(name, "its description is " + std::to_string(plugin->size) + " bytes long, too short to be one");
  }
  if (plugin->abi >> 16 != VMMHOST_PLUGIN_ABI_MAJOR) {
    throw unfit(name,
                "it was built for version " + abiText(plugin->abi) + " of the plugin interface, this host (" +
                    hostApi().build + ") has version " + abiText(VMMHOST_PLUGIN_ABI),
                "install a version of the backend that was built for this host");
  }
  // All fields up to here are of version 1.0.
  if (!VMMHOST_HAS_FIELD(plugin, vmmhost_plugin, plan) || plugin->probe == nullptr || plugin->validate == nullptr ||
      plugin->plan == nullptr) {
    throw unfit(name, "its description lacks probe, validate or plan", "report this to its maker");
  }
}

}  // namespace

std::string abiText(std::uint32_t abi) {
  return std::to_string(abi >> 16) + '.' + std::to_string(abi & 0xffff);
}

Library loadLibrary(int descriptor, const std::string& path, const std::string& name, const LogSink& sink) {
  void* handle = nullptr;
  vmmhost_plugin_entry_fn entry = nullptr;
  callPlugin(name, "(constructor)", sink, [&](vmmhost_error* error) {
    handle = ::dlopen(uniqueDescriptorPath(descriptor).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      std::string reason = pluginText(::dlerror(), kMaxLineBytes, "no reason");
      // It begins with the path that the loader was given, which tells nobody anything.
      if (const std::size_t colon = reason.find(": "); reason.starts_with("/proc/self/fd/") && colon != reason.npos) {
        reason.erase(0, colon + 2);
      }
      error->value.emplace(ErrorCode::kUnavailable, "the file " + path + " cannot be loaded: " + reason,
                           "check that it was built for this machine and that the libraries it needs are installed");
      return false;
    }
    entry = reinterpret_cast<vmmhost_plugin_entry_fn>(::dlsym(handle, VMMHOST_PLUGIN_ENTRY_SYMBOL));
    return true;
  });
  if (entry == nullptr) {
    throw unfit(name, "the file " + path + " has no symbol " VMMHOST_PLUGIN_ENTRY_SYMBOL,
                "it is not a plugin of vmmhost");
  }
  const vmmhost_plugin* plugin = nullptr;
  callPlugin(name, VMMHOST_PLUGIN_ENTRY_SYMBOL, sink, [&](vmmhost_error* error) {
    plugin = entry(&hostApi(), error);
    return plugin != nullptr;
  });
  checkAbi(plugin, name);
  Library library;
  library.name = pluginText(plugin->name, 32);
  if (library.name != name) {
    throw unfit(name, "the plugin in the file " + path + " calls itself \"" + library.name + '"',
                "rename the file to vmmhost-backend-" + (isBackendName(library.name) ? library.name : "NAME") + ".so");
  }
  library.version = pluginText(plugin->version, 128);
  library.description = pluginText(plugin->description, kMaxLineBytes);
  library.functions = plugin;
  return library;
}

ProbeResult callProbe(const Library& library, bool measure, const LogSink& sink) {
  const vmmhost_probe_request request = {sizeof(vmmhost_probe_request), measure ? 1u : 0u};
  vmmhost_probe_result answer = {};
  answer.size = sizeof(answer);
  callPlugin(library.name, "probe", sink,
             [&](vmmhost_error* error) { return library.functions->probe(&hostApi(), &request, &answer, error) == 0; });
  const auto fault = [&](const char* what) {
    return backendError(library.name, Error(ErrorCode::kInternal, std::string("its probe answered ") + what,
                                            "report this to its maker"));
  };
  ProbeResult result;
  BackendInfo& info = result.info;
  info.name = library.name;
  info.version = library.version;
  info.description = library.description;
  info.preference = library.functions->preference;
  info.usable = answer.usable != 0;
  if (answer.acceleration > VMMHOST_ACCELERATION_HARDWARE) {
    throw fault("an unknown kind of acceleration");
  }
  info.acceleration = static_cast<Acceleration>(answer.acceleration);
  info.summary = pluginText(answer.summary, kMaxLineBytes);
  info.hint = pluginText(answer.hint, kMaxLineBytes);
  info.instructionsPerSecond = answer.instructions_per_second;
  if (answer.capability_count > kMaxCapabilities || (answer.capability_count > 0 && answer.capabilities == nullptr)) {
    throw fault("too many capabilities, or none where it counted some");
  }
  for (std::uint32_t index = 0; index < answer.capability_count; ++index) {
    std::string capability = pluginText(answer.capabilities[index], 32);
    if (!isBackendName(capability)) {
      throw fault("a capability that is no name of [a-z0-9-]");
    }
    info.capabilities.push_back(std::move(capability));
  }
  if (answer.watched_path_count > kMaxWatchedPaths ||
      (answer.watched_path_count > 0 && answer.watched_paths == nullptr)) {
    throw fault("too many watched paths, or none where it counted some");
  }
  for (std::uint32_t index = 0; index < answer.watched_path_count; ++index) {
    const char* path = answer.watched_paths[index];
    if (path == nullptr || path[0] != '/') {
      throw fault("a watched path that is not absolute");
    }
    result.watchedPaths.push_back(pluginText(path, kMaxMessageBytes));
  }
  if (answer.config_field_count > kMaxConfigFields ||
      (answer.config_field_count > 0 && answer.config_fields == nullptr)) {
    throw fault("too many fields of a configuration, or none where it counted some");
  }
  for (std::uint32_t index = 0; index < answer.config_field_count; ++index) {
    // What is too long is cut, with dots at its end, and so no name.
    std::string field = pluginText(answer.config_fields[index], kMaxConfigFieldBytes);
    if (!isConfigFieldName(field)) {
      throw fault("a field of a configuration that is no name such as nics.attachment.network");
    }
    result.configFields.push_back(std::move(field));
  }
  return result;
}

}  // namespace vmmhost::plugin
