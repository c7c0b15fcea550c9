#include "host/plugin/registry.h"

#include <sys/stat.h>

#include <climits>
#include <map>
#include <mutex>

#include "host/base/text.h"
#include "host/plugin/choice.h"
#include "host/plugin/host_api.h"
#include "host/plugin/loaded_plugin.h"
#include "host/plugin/probe_cache.h"
#include "host/plugin/probe_process.h"
#include "host/plugin/search.h"
#include "host/plugin/trusted_file.h"

namespace vmmhost::plugin {
namespace {

std::string join(const std::vector<std::string>& parts, const char* separator) {
  std::string out;
  for (const std::string& part : parts) {
    out += (out.empty() ? "" : separator) + printable(part, PATH_MAX);
  }
  return out;
}

// A plugin's file that was probed without a crash.
struct Proof {
  struct stat status = {};
  std::vector<std::string> configFields;

  bool isOf(const struct stat& other) const {
    return status.st_dev == other.st_dev && status.st_ino == other.st_ino &&
           status.st_ctim.tv_sec == other.st_ctim.tv_sec && status.st_ctim.tv_nsec == other.st_ctim.tv_nsec;
  }
};

}  // namespace

struct Registry::Impl {
  RegistryOptions options;
  std::vector<std::string> folders;
  std::map<std::string, std::shared_ptr<Plugin>, std::less<>> loaded;
  std::map<std::string, Proof, std::less<>> proven;  // by this registry
  std::mutex mutex;                                  // guards both

  TrustedFile open(const std::string& name, const std::vector<std::string>& files) const {
    if (files.size() > 1) {
      throw backendError(name, Error(ErrorCode::kUnavailable,
                                     "there are two plugins of this name, " + printable(files[0], PATH_MAX) + " and " +
                                         printable(files[1], PATH_MAX),
                                     "remove one of them"));
    }
    return openTrusted(files[0], "plugin");
  }

  std::vector<std::string> filesOf(std::string_view name) const {
    auto found = findPluginFiles(folders);
    const auto position = found.find(std::string(name));
    if (position != found.end()) {
      return position->second;
    }
    std::vector<std::string> names;
    for (const auto& [other, files] : found) {
      names.push_back(other);
    }
    throw Error(ErrorCode::kNotFound, "there is no backend " + inQuotes(name),
                names.empty() ? "no plugin was found in " + join(folders, ", ") : "there is: " + join(names, ", "));
  }

  // What the probe of this file said of newer fields, if it has been probed. The mutex is held.
  std::optional<std::vector<std::string>> proof(const std::string& name, const TrustedFile& file) const {
    if (const auto position = proven.find(name); position != proven.end() && position->second.isOf(file.status)) {
      return position->second.configFields;
    }
    if (auto cached = ProbeCache(options.cacheDirectory).find(name, file.path, file.status, false)) {
      return std::move(cached->configFields);
    }
    return std::nullopt;
  }

  void tell(const ProbeResult& result, const LogSink& log) const {
    for (const LogLine& line : result.said) {
      if (const LogSink& sink = log ? log : options.log) {
        sink(line.level, "backend " + result.info.name + ", being probed: " + line.text);
      }
    }
  }

  std::vector<std::string> prove(const std::string& name, const TrustedFile& file, int cancel, const LogSink& log) {
    std::vector<ProbeJob> jobs;
    jobs.push_back({name, file.path, file.file.duplicate(), false});
    ProbeResult result = std::move(runProbes(options.probeProgram, jobs, options.probeTimeout, cancel).front());
    tell(result, log);
    ProbeCache(options.cacheDirectory).store(file.path, file.status, false, result);
    if (!result.answered) {
      throw *result.info.error;
    }
    const std::lock_guard lock(mutex);
    proven[name] = {file.status, result.configFields};
    return std::move(result.configFields);
  }

  std::vector<BackendInfo> probe(const std::map<std::string, std::vector<std::string>>& wanted, bool measure,
                                 int cancel = -1, const LogSink& log = {}) const {
    const ProbeCache cache(options.cacheDirectory);
    std::vector<BackendInfo> infos;
    std::vector<ProbeJob> jobs;
    std::vector<std::size_t> places;  // of the jobs' answers in infos
    std::vector<TrustedFile> files;   // of the jobs
    for (const auto& [name, paths] : wanted) {
      BackendInfo info;
      info.name = name;
      info.path = paths[0];
      try {
        TrustedFile file = open(name, paths);
        if (auto cached = cache.find(name, file.path, file.status, measure)) {
          info = std::move(cached->info);
          info.path = file.path;
        } else {
          jobs.push_back({name, file.path, file.file.duplicate(), measure});
          places.push_back(infos.size());
          files.push_back(std::move(file));
        }
      } catch (const Error& error) {
        info.error = error;
      }
      infos.push_back(std::move(info));
    }
    std::vector<ProbeResult> results = runProbes(options.probeProgram, jobs, options.probeTimeout, cancel);
    for (std::size_t index = 0; index < results.size(); ++index) {
      tell(results[index], log);
      cache.store(files[index].path, files[index].status, measure, results[index]);
      infos[places[index]] = std::move(results[index].info);
    }
    return infos;
  }
};

Registry::Registry(RegistryOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->folders = searchFolders(options.pluginPath, options.userDirectory, options.prefixDirectory);
  impl_->options = std::move(options);
}

Registry::~Registry() = default;

std::vector<std::string> Registry::names() const {
  std::vector<std::string> names;
  for (const auto& [name, files] : findPluginFiles(impl_->folders)) {
    names.push_back(name);
  }
  return names;
}

bool Registry::isProven(std::string_view name) {
  const std::lock_guard lock(impl_->mutex);
  const std::string text(name);
  return impl_->loaded.count(text) != 0 || impl_->proof(text, impl_->open(text, impl_->filesOf(name)));
}

void Registry::prove(std::string_view name, int cancel, const LogSink& log) {
  const std::string text(name);
  impl_->prove(text, impl_->open(text, impl_->filesOf(name)), cancel, log);
}

std::shared_ptr<Plugin> Registry::load(std::string_view name) {
  const std::string text(name);
  std::unique_lock lock(impl_->mutex);
  if (const auto position = impl_->loaded.find(name); position != impl_->loaded.end()) {
    return position->second;
  }
  const TrustedFile file = impl_->open(text, impl_->filesOf(name));
  auto configFields = impl_->proof(text, file);
  if (!configFields) {
    lock.unlock();
    configFields = impl_->prove(text, file, -1, {});
    lock.lock();
  }
  std::shared_ptr<Plugin> plugin = loadPlugin(file, text, std::move(*configFields), impl_->options.log);
  return impl_->loaded.try_emplace(text, std::move(plugin)).first->second;
}

std::vector<BackendInfo> Registry::probe(bool measure) {
  return impl_->probe(findPluginFiles(impl_->folders), measure);
}

BackendInfo Registry::probe(std::string_view name, bool measure) {
  return impl_->probe({{std::string(name), impl_->filesOf(name)}}, measure)[0];
}

Registry::Choice Registry::choose(int cancel, const LogSink& log) {
  return chooseBackend(impl_->probe(findPluginFiles(impl_->folders), true, cancel, log));
}

void Registry::log(int level, std::string_view line) const {
  if (impl_->options.log) {
    impl_->options.log(level, line);
  }
}

}  // namespace vmmhost::plugin
