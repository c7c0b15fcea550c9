// From a configuration and options to what a VM is made of, the same for a supervisor and for a program that embeds.
#pragma once

#include <capnp/message.h>
#include <kj/async-unix.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/base/log.h"
#include "host/base/paths.h"
#include "host/plugin/registry.h"
#include "host/runtime/directories.h"
#include "host/vm/vm.h"

namespace vmmhost::launch {

struct Options {
  std::string backend;  // empty or "auto": one is chosen
  std::string workingDirectory;
  std::chrono::milliseconds timeout{0};  // of the VM; 0: none
  std::vector<std::string> without;      // parts of the jail to be given up
  bool explainsJail = false;             // calls that the jail forbids are told with their arguments
};

// Ready to be run, but for what depends on where: consoles, control groups, sockets.
struct Launch {
  vm::VmSpec spec;
  std::optional<runtime::UidLease> lease;  // held until the VM has ended
};

// The backends of an installation, and first those of `pluginPath`. What plugins log goes to `log`, which outlives the
// registry and the plugins: it is used on the thread that calls choose() and make() of a Launcher.
std::shared_ptr<plugin::Registry> makeRegistry(const InstallPaths& installation, const std::string& pluginPath,
                                               Log& log);

// "PREFIX-" and a random number.
std::string madeUpName(std::string_view prefix);

// One launch: made, choose(), then make() once. On one thread.
class Launcher {
 public:
  // `config`: its root is a VmConfig, which gets a madeUpName() where it has none. Throws Error for one
  // that is not valid, and for a part of the jail that there is not.
  Launcher(Options options, std::unique_ptr<capnp::MallocMessageBuilder> config, std::string_view prefix);

  // Until make().
  schema::VmConfig::Reader config() const { return config_->getRoot<schema::VmConfig>().asReader(); }
  const std::string& backend() const { return options_.backend; }  // as asked for, until one was chosen

  // Finds out which backend it is to be, or proves the one that is named: at once where nothing has to be tried. Giving
  // the promise up ends what is being tried.
  kj::Promise<void> choose(kj::UnixEventPort& port, std::shared_ptr<plugin::Registry> registry);
  // Loads the plugin and asks it; takes user ids. `loaded` is called in between. Throws what the plugin says.
  Launch make(const std::function<void()>& loaded = {});

 private:
  Options options_;
  std::unique_ptr<capnp::MallocMessageBuilder> config_;
  std::shared_ptr<plugin::Registry> registry_;
  std::string reason_;  // why this backend; empty: it was named
};

}  // namespace vmmhost::launch
