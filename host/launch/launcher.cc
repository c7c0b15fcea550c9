#include "host/launch/launcher.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iterator>

#include "host/base/text.h"
#include "host/config/vm_config.h"
#include "host/plugin/choose_aside.h"
#include "host/plugin/places.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/plugin.h"

namespace vmmhost::launch {
namespace {

constexpr std::string_view kAuto = "auto";

void requirePart(const std::string& part) {
  if (std::find(std::begin(spawn::kPartNames), std::end(spawn::kPartNames), part) != std::end(spawn::kPartNames)) {
    return;
  }
  std::string known;
  for (const auto name : spawn::kPartNames) {
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw Error(ErrorCode::kInvalidArgument, "--without " + inQuotes(part) + ": no such part of the jail",
              "parts that can be left out: " + known);
}

Severity severityOf(int level) {
  switch (level) {
    case VMMHOST_LOG_DEBUG:
      return Severity::kDebug;
    case VMMHOST_LOG_INFO:
      return Severity::kInfo;
    case VMMHOST_LOG_WARNING:
      return Severity::kWarning;
    default:
      return Severity::kError;
  }
}

}  // namespace

std::shared_ptr<plugin::Registry> makeRegistry(const InstallPaths& installation, const std::string& pluginPath,
                                               Log& log) {
  plugin::RegistryOptions options = plugin::registryOptions(installation, pluginPath, ::geteuid() == 0);
  options.log = [&log](int level, std::string_view line) { log.write(severityOf(level), "plugin", line); };
  return std::make_shared<plugin::Registry>(std::move(options));
}

std::string madeUpName(std::string_view prefix) {
  std::uint32_t random = 0;
  if (::getrandom(&random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) {
    throw systemError("getrandom", errno);
  }
  char text[16];
  std::snprintf(text, sizeof(text), "-%08x", random);
  return std::string(prefix) + text;
}

Launcher::Launcher(Options options, std::unique_ptr<capnp::MallocMessageBuilder> config, std::string_view prefix)
    : options_(std::move(options)), config_(std::move(config)) {
  auto root = config_->getRoot<schema::VmConfig>();
  config::validateVmConfig(root.asReader());
  if (root.getName().size() == 0) {
    root.setName(madeUpName(prefix));
  }
  for (const std::string& part : options_.without) {
    requirePart(part);
  }
}

kj::Promise<void> Launcher::choose(kj::UnixEventPort& port, std::shared_ptr<plugin::Registry> registry) {
  registry_ = std::move(registry);
  const bool isNamed = !options_.backend.empty() && options_.backend != kAuto;
  if (isNamed && registry_->isProven(options_.backend)) {
    return kj::READY_NOW;
  }
  return plugin::chooseAside(port, registry_, isNamed ? options_.backend : "")
      .then([this](plugin::Registry::Choice choice) {
        options_.backend = choice.backend.name;
        reason_ = choice.reason;
      });
}

Launch Launcher::make(const std::function<void()>& loaded) {
  const std::shared_ptr<plugin::Plugin> plugin = registry_->load(options_.backend);
  if (loaded) {
    loaded();
  }
  plugin->validate(config());
  Launch launch;
  vm::VmSpec& spec = launch.spec;
  spec.plan = plugin->plan(config());
  spec.backend = options_.backend;
  spec.choice = reason_;
  spec.workingDirectory = options_.workingDirectory;
  spec.timeout = options_.timeout;
  spec.explainsJail = options_.explainsJail;
  spec.without.insert(options_.without.begin(), options_.without.end());
  if (::geteuid() == 0) {
    launch.lease = runtime::UidLease::take();
    spec.uid = launch.lease->uid();
    spec.gid = launch.lease->uid();
  } else {
    spec.uid = ::geteuid();
    spec.gid = ::getegid();
  }
  spec.config = std::move(config_);
  return launch;
}

}  // namespace vmmhost::launch
