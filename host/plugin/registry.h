// Finds, checks, probes and loads backend plugins.
#pragma once

#include <capnp/message.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/plugin/log_sink.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/vm.capnp.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::plugin {

// A launch plan in C++, copied out of the plugin's and checked (bounds, absolute paths, known names).
struct LaunchPlan {
  enum class Root { kEmpty, kSystem };
  struct Bind {
    std::string source;
    std::string target;
  };
  struct Device {
    std::string name;
    std::string path;
    bool optional = false;
  };
  struct Rlimit {
    std::uint32_t resource = 0;
    std::uint64_t value = 0;
  };
  std::string workerPath;         // absolute
  Fd worker;                      // opened O_RDONLY | O_CLOEXEC | O_NOFOLLOW; its file and folders have trusted owners
  std::vector<std::string> argv;  // [0] included
  Root root = Root::kEmpty;
  bool proc = false;
  bool dev = false;
  bool tmp = false;
  seccomp::PolicyChoice seccompPolicy = "worker-static";
  bool hasOldPolicy = false;  // as it was up to 1.1 of the plugin interface
  bool reopensBootFiles = false;
  std::vector<Bind> binds;
  std::vector<Device> devices;
  std::vector<Rlimit> rlimits;
  std::uint32_t rings = 0;
  std::uint32_t epolls = 0;          // 0: the worker makes its own
  std::uint32_t maxDescriptors = 0;  // what holds, but for a vsock device's
  std::uint32_t maxProcesses = 0;    // 0: virtual CPUs + 8
  std::uint64_t overheadBytes = 0;   // 0: 64 MiB
  std::chrono::milliseconds helloTimeout{5000};
  std::chrono::milliseconds createTimeout{15000};
};

// A plugin in this process; never unloaded. Calls come from one thread at a time.
class Plugin {
 public:
  virtual ~Plugin() = default;
  virtual const std::string& name() const = 0;
  virtual const std::string& version() const = 0;
  virtual const std::string& path() const = 0;
  // Both throw the plugin's Error, with "backend NAME: " before the message, and kUnsupported for a field that is newer
  // than the version of the interface that the plugin was built for, unless its probe named the field.
  virtual void validate(schema::VmConfig::Reader config) = 0;
  virtual LaunchPlan plan(schema::VmConfig::Reader config) = 0;
};

enum class Acceleration { kNone = 0, kEmulated = 1, kHardware = 2 };

// What is known of one plugin file.
struct BackendInfo {
  std::string name;
  std::string path;
  std::string version;
  std::string description;
  std::uint32_t preference = 0;
  bool usable = false;
  Acceleration acceleration = Acceleration::kNone;
  std::vector<std::string> capabilities;
  std::string summary;
  std::string hint;
  std::uint64_t instructionsPerSecond = 0;  // 0: not measured
  std::optional<Error> error;               // refused, crashed or hung: why; then nothing else but name and path counts
};

struct RegistryOptions {
  // Folders in order: those of `pluginPath` (VMMHOST_PLUGIN_PATH, ':'-separated), then `userDirectory`, then
  // `prefixDirectory`; missing ones are passed over. Empty: that place is not searched.
  std::string pluginPath;
  std::string userDirectory;
  std::string prefixDirectory;
  std::string probeProgram;    // absolute path of vmmhost-plugin-probe
  std::string cacheDirectory;  // where probe results are kept, made with mode 0700; empty: not cached
  std::chrono::milliseconds probeTimeout{5000};
  // What plugins log: those in this process during a call, those that are probed when it is over (warnings and errors;
  // the line says whose it is). On the calling thread.
  LogSink log;
};

// Plugins are files named "vmmhost-backend-NAME.so", NAME being 1 to 32 bytes of [a-z0-9-]. A name found in two folders
// is an error that names both files (for that name only). A file or folder that someone other than root or the caller
// owns, or can write, is refused. One thread at a time; the Plugins it hands out may outlive it.
class Registry {
 public:
  explicit Registry(RegistryOptions options);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The names that there are, without opening anything; sorted.
  std::vector<std::string> names() const;

  // Loads the plugin of this name into this process, after proving it if it is not. Throws kNotFound (the hint lists
  // what there is), kConfinement for untrusted files, kUnavailable for a plugin that crashes, hangs, does not fit this
  // host's ABI or shares its name with another file. Blocks up to the probe timeout.
  std::shared_ptr<Plugin> load(std::string_view name);

  // What crashes or hangs when it is loaded or probed is to do so in a program of its own, once for each version of its
  // file where results can be kept. isProven: that was so, or load() has loaded it. prove: blocks up to the probe
  // timeout; `cancel` and `log` as in choose(). Both throw as load().
  bool isProven(std::string_view name);
  void prove(std::string_view name, int cancel = -1, const LogSink& log = {});

  // Probes in programs of their own, side by side, using cached results. Never throws for what a plugin does. Blocks
  // up to the probe timeout. Sorted by name. The second throws kNotFound.
  std::vector<BackendInfo> probe(bool measure);
  BackendInfo probe(std::string_view name, bool measure);

  // What `auto` takes: usable hardware acceleration first, then none (translation), then emulated; among equals the
  // highest preference. Throws kUnavailable with the reasons of all when none is usable.
  struct Choice {
    BackendInfo backend;
    std::string reason;  // one line: what was chosen and why, and why not the others
  };
  // Readable, `cancel` (a descriptor; -1: none) ends the probes, and kCancelled is thrown. `log` takes the place of the
  // options', for a caller on a thread that it is not for; log() hands on to that.
  Choice choose(int cancel = -1, const LogSink& log = {});
  void log(int level, std::string_view line) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmmhost::plugin
