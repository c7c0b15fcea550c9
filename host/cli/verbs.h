// The verbs of the vmmhost command. Each returns the exit code of the process, and throws Error for what goes wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host/cli/completion.h"
#include "host/config/flags.h"

namespace vmmhost::cli {

struct RunOptions {
  config::RunFlags flags;
  std::string backend = "auto";
  std::optional<std::string> timeoutSeconds;
  std::vector<std::string> without;
  bool detach = false;
  bool removeOnEnd = false;
  bool json = false;
  bool timings = false;
  std::uint64_t commandStartNs = 0;  // CLOCK_MONOTONIC
};
int run(const RunOptions& options);

struct PsOptions {
  bool all = false;
  bool json = false;
};
int ps(const PsOptions& options);

struct InspectOptions {
  std::string name;  // empty: the flags describe what is to be shown
  bool config = false;
  config::RunFlags flags;
};
int inspect(const InspectOptions& options);

struct LogsOptions {
  std::string name;
  bool follow = false;
  bool vmm = false;
  std::optional<std::string> port;
  bool json = false;
};
int logs(const LogsOptions& options);

struct ConsoleOptions {
  std::string name;
  std::optional<std::string> port;
  bool json = false;
};
int console(const ConsoleOptions& options);
int vsock(const std::string& name, const std::string& port);

struct ControlOptions {
  enum class Verb { kShutdown, kStop, kPause, kResume, kReset };
  Verb verb = Verb::kStop;
  std::string name;
  std::optional<std::string> timeoutSeconds;  // of shutdown
  bool json = false;
};
int control(const ControlOptions& options);
struct BalloonOptions {
  std::string name;
  std::optional<std::string> size;  // to set
  bool json = false;
};
int balloon(const BalloonOptions& options);
int wait(const std::vector<std::string>& names, bool json);
int remove(const std::vector<std::string>& names, bool force, bool json);

struct ConformanceOptions {
  std::optional<std::string> backend;
  std::optional<std::string> plugin;
  std::vector<std::string> patterns;
  std::optional<std::string> kernel;
  std::optional<std::string> initrd;
  std::optional<std::string> jobs;
  bool list = false;
  bool json = false;
};
int conformance(const ConformanceOptions& options);  // does not return: the process becomes another program

int backends(bool json);
int doctor(bool json);
int version(bool json);

// `shell` is "bash"; or one of what the script asks for: "vms", "live-vms", "backends".
int completion(const std::string& shell, const CommandTree& tree);

}  // namespace vmmhost::cli
