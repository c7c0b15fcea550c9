// vmmhost-conformance: runs the list of behaviours on one backend. Started by `vmmhost conformance`.
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "host/base/environment.h"
#include "host/base/paths.h"
#include "host/base/text.h"
#include "host/cli/base/exit_codes.h"
#include "host/cli/base/output.h"
#include "host/plugin/places.h"
#include "host/plugin/registry.h"
#include "tests/conformance/case_process.h"
#include "tests/conformance/context.h"
#include "tests/conformance/leaks.h"
#include "tests/conformance/options.h"
#include "tests/conformance/refusals.h"
#include "tests/conformance/result.h"

namespace vmmhost::conformance {
namespace {

constexpr int kVerdictFd = 3;
constexpr char kPluginPrefix[] = "vmmhost-backend-";
constexpr char kPluginSuffix[] = ".so";

// NAME of .../vmmhost-backend-NAME.so.
std::string backendNameOf(const std::string& path) {
  const std::string file = path.substr(path.rfind('/') + 1);
  const std::size_t around = sizeof(kPluginPrefix) - 1 + sizeof(kPluginSuffix) - 1;
  if (file.size() <= around || file.rfind(kPluginPrefix, 0) != 0 ||
      file.substr(file.size() - (sizeof(kPluginSuffix) - 1)) != kPluginSuffix) {
    throw Error(ErrorCode::kInvalidArgument, "--plugin " + inQuotes(path, 4096) + " is no name for a plugin",
                "a plugin's file is called vmmhost-backend-NAME.so");
  }
  return file.substr(sizeof(kPluginPrefix) - 1, file.size() - around);
}

std::string absolutePath(const std::string& option, const std::string& path) {
  if (path.empty()) {
    return path;
  }
  std::error_code error;
  const auto absolute = std::filesystem::canonical(path, error);
  if (error) {
    throw systemError(option + ' ' + path, error.value());
  }
  return absolute.string();
}

Subject probe(const Options& options) {
  const std::string file = absolutePath("--plugin", options.plugin);
  const std::string name = file.empty() ? options.backend : backendNameOf(file);
  const std::string folders =
      file.empty() ? processVariable("VMMHOST_PLUGIN_PATH").value_or("") : file.substr(0, file.rfind('/'));
  plugin::Registry registry(plugin::registryOptions(findInstallation(), folders, ::geteuid() == 0));
  const plugin::BackendInfo info = registry.probe(name, true);
  if (info.error) {
    throw *info.error;
  }
  if (!info.usable) {
    throw Error(ErrorCode::kUnavailable, "backend " + name + " cannot be used on this machine: " + info.summary,
                info.hint);
  }
  static constexpr const char* kAccelerations[] = {"none", "emulated", "hardware"};
  return {info.name,
          info.path,
          info.version,
          info.description,
          kAccelerations[static_cast<int>(info.acceleration)],
          info.summary,
          info.capabilities,
          info.instructionsPerSecond};
}

Kit makeKit(const Options& options) {
  return {findInstallation().conformanceGuests, absolutePath("--kernel", options.kernel),
          absolutePath("--initrd", options.initrd)};
}

// A folder that goes with its contents.
class ScratchFolder {
 public:
  ScratchFolder() {
    const char* base = ::secure_getenv("TMPDIR");
    path_ = std::string(base == nullptr || base[0] != '/' ? "/tmp" : base) + "/vmmhost-conformance-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) {
      throw systemError("making " + path_, errno);
    }
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

int runAll(const Options& options) {
  const ScratchFolder scratch;
  // What is found out of the plugin is kept for the processes of the cases, and nowhere else.
  ::setenv("XDG_CACHE_HOME", (scratch.path() + "/cache").c_str(), 1);
  const Subject subject = probe(options);
  const Kit kit = makeKit(options);
  std::vector<Job> jobs;
  for (const Case& one : allCases()) {
    if (!isSelected(one.name, options.patterns)) {
      continue;
    }
    const Gate gate = decide(one, subject, kit);
    Job& job = jobs.emplace_back();
    job.result.name = one.name;
    job.result.needs = one.needs;
    job.result.text = one.text;
    job.folder = scratch.path() + '/' + std::to_string(jobs.size());
    if (gate.kind == Gate::Kind::kAbsent) {
      job.result.kind = Result::Kind::kAbsent;
      job.result.detail = gate.reason;
    } else {
      job.arguments =
          childArguments(options, subject.path, one.name, job.folder, gate.capability, subject.capabilities);
    }
  }
  if (jobs.empty()) {
    throw Error(ErrorCode::kNotFound, "--case " + inQuotes(options.patterns[0]) + " fits no case",
                "`vmmhost conformance --list` shows them");
  }
  adoptOrphans();
  std::vector<Result> results;
  const int signal = runJobs(std::filesystem::read_symlink("/proc/self/exe").string(), jobs, {.jobs = options.jobs},
                             [&](const Result& result) {
                               results.push_back(result);
                               if (!options.json) {
                                 cli::printLine(resultLine(result));
                               }
                             });
  if (signal != 0) {
    return cli::kExitSignalBase + signal;
  }
  cli::printLine(options.json ? resultsJson(subject, results) : summaryLine(subject, results));
  return count(results).failed == 0 ? cli::kExitOk : cli::kExitCrashed;
}

// The process of one case.
Result runOne(const Case& one, const Options& options) {
  Subject subject;
  subject.path = options.plugin;
  subject.name = backendNameOf(options.plugin);
  subject.capabilities = splitWords(options.capabilities, ',');
  const Kit kit = makeKit(options);
  ::setenv("VMMHOST_RUNTIME_DIR", (options.childFolder + "/run").c_str(), 1);
  ::setenv("VMMHOST_STATE_DIR", (options.childFolder + "/state").c_str(), 1);
  ::unsetenv("VMMHOST_PLUGIN_PATH");
  adoptOrphans();
  LeakCheck leaks(options.childFolder);
  Result result;
  std::vector<pid_t> hostPids;
  {
    Context context(subject, kit, options.childFolder);
    try {
      if (options.refusalOf.empty()) {
        one.run(context);
        result.kind = Result::Kind::kPassed;
      } else {
        result.detail = options.refusalOf + ": " + observeRefusal(context, options.refusalOf);
        result.kind = Result::Kind::kNotAdvertised;
      }
    } catch (const Failure& failure) {
      result.kind = Result::Kind::kFailed;
      result.detail = failure.what();
    } catch (const Error& error) {
      result.kind = Result::Kind::kFailed;
      result.detail = "unexpected error: " + text(error);
    }
    result.observed = context.observed();
    hostPids = context.hostPids();
  }
  for (const std::string& left : leaks.look(hostPids)) {
    result.kind = Result::Kind::kFailed;
    result.detail += (result.detail.empty() ? "" : "; ") + ("left behind: " + left);
  }
  return result;
}

int runChild(const Options& options) {
  ::fcntl(kVerdictFd, F_SETFD, FD_CLOEXEC);
  for (const Case& one : allCases()) {
    if (one.name == options.patterns.at(0)) {
      const std::string verdict = encodeVerdict(runOne(one, options));
      return ::write(kVerdictFd, verdict.data(), verdict.size()) == static_cast<ssize_t>(verdict.size()) ? 0 : 1;
    }
  }
  return cli::kExitFailed;
}

int run(const Options& options) {
  if (options.help) {
    cli::print(kUsage);
    return cli::kExitOk;
  }
  if (options.list) {
    Cases cases;
    for (Case& one : allCases()) {
      if (isSelected(one.name, options.patterns)) {
        cases.push_back(std::move(one));
      }
    }
    cli::print(options.json ? casesJson(cases) + '\n' : casesText(cases));
    return cli::kExitOk;
  }
  return options.childFolder.empty() ? runAll(options) : runChild(options);
}

}  // namespace
}  // namespace vmmhost::conformance

int main(int argc, char** argv) {
  using namespace vmmhost;
  bool json = false;
  for (int index = 1; index < argc; ++index) {
    json = json || std::string_view(argv[index]) == "--json";
  }
  try {
    return conformance::run(conformance::parseOptions(argc, argv));
  } catch (const Error& error) {
    return cli::report(error, json);
  } catch (const std::exception& error) {
    return cli::report(Error(ErrorCode::kInternal, std::string("a fault of vmmhost: ") + error.what()), json);
  }
}
