// vmmhost logs: what a VM said on its console, or what its supervisor and worker logged.
#include <kj/async-unix.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>

#include "host/cli/base/output.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/terminal/terminal_filter.h"
#include "host/cli/verbs/shared_usage.h"
#include "host/cli/verbs/verbs.h"
#include "host/config/vm_config.h"

namespace vmmhost::cli {

namespace {

struct LogsOptions {
  std::string name;
  bool follow = false;
  bool vmm = false;
  std::optional<std::string> port;
  bool json = false;
};

// Where a log is printed to.
class Sink {
 public:
  explicit Sink(bool json) : json_(json), terminal_(!json && ::isatty(STDOUT_FILENO) == 1) {}

  void take(std::string_view piece) {
    if (json_) {
      collected_ += piece;
    } else {
      print(terminal_ ? filter_.feed(piece) : piece);
    }
  }
  void finish(const std::string& name) {
    if (json_) {
      config::JsonWriter writer;
      print(writer.beginObject().member("name", name).member("log", collected_).endObject().str() + '\n');
    } else if (terminal_) {
      print(filter_.finish());
    }
  }

 private:
  bool json_;
  bool terminal_;
  TerminalFilter filter_;
  std::string collected_;
};

void copyRest(const Fd& file, Sink& sink) {
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw systemError("reading a log", errno);
    }
    if (count == 0) {
      return;
    }
    sink.take({buffer, static_cast<std::size_t>(count)});
  }
}

std::optional<Fd> openLog(const runtime::Directories& directories, const std::string& name, const std::string& file) {
  try {
    return runtime::openState(directories, runtime::vmName(name), file);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) {
      return std::nullopt;
    }
    throw;
  }
}

// Prints a log as it grows, through rotations, until the VM has ended.
class Follower {
 public:
  Follower(kj::AsyncIoContext& io, const runtime::Directories& directories, const LogsOptions& options,
           const std::string& file, Sink& sink)
      : directories_(directories),
        options_(options),
        fileName_(file),
        sink_(sink),
        notifications_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (!notifications_) {
      throw systemError("inotify_init1", errno);
    }
    observer_ = kj::heap<kj::UnixEventPort::FdObserver>(io.unixEventPort, notifications_.get(),
                                                        kj::UnixEventPort::FdObserver::OBSERVE_READ);
    open();
  }

  // Never fulfilled: joined with the VM's end.
  kj::Promise<void> follow() {
    bool rotated = false;
    alignas(inotify_event) char buffer[4096];
    for (;;) {
      const ssize_t count = ::read(notifications_.get(), buffer, sizeof buffer);
      if (count <= 0) {
        break;
      }
      for (ssize_t at = 0; at < count;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
        rotated = rotated || (event->mask & (IN_MOVE_SELF | IN_DELETE_SELF)) != 0;
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
    take();
    if (rotated) {
      open();
      take();
    }
    return observer_->whenBecomesReadable().then([this]() { return follow(); });
  }

  void take() {
    if (file_) {
      copyRest(*file_, sink_);
    }
  }

 private:
  void open() {
    file_ = openLog(directories_, options_.name, fileName_);
    if (file_) {
      const std::string path = "/proc/self/fd/" + std::to_string(file_->get());
      if (::inotify_add_watch(notifications_.get(), path.c_str(), IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF) < 0) {
        throw systemError("watching " + fileName_, errno);
      }
    }
  }

  const runtime::Directories& directories_;
  const LogsOptions& options_;
  std::string fileName_;
  Sink& sink_;
  Fd notifications_;
  kj::Own<kj::UnixEventPort::FdObserver> observer_;
  std::optional<Fd> file_;
};

int logs(const LogsOptions& options) {
  config::validateVmName(options.name);
  if (options.follow && options.json) {
    throw Error(ErrorCode::kInvalidArgument, "logs: -f and --json exclude each other",
                "--json gives one document with all that has been logged so far");
  }
  if (options.port && options.vmm) {
    throw Error(ErrorCode::kInvalidArgument, "logs: --port and --vmm exclude each other",
                "--port is for what the guest said on a further console");
  }
  const std::uint32_t port = parseConsole("--port", options.port);
  const auto directories = openDirectories();
  const bool alive = runtime::find(directories, runtime::vmName(options.name)).alive;
  const std::string file = options.vmm ? "vmmhost.log" : runtime::consoleLogName(port);
  Sink sink(options.json);
  if (const auto older = openLog(directories, options.name, file + ".1")) {
    copyRest(*older, sink);
  }
  if (options.follow && alive) {
    auto io = kj::setupAsyncIo();
    Follower follower(io, directories, options, file, sink);
    const auto client = connectTo(io, directories, options.name);
    auto ended = client->wait().then([](client::ControlClient::WaitResponse&&) {}, [](kj::Exception&&) {});
    client::await(io, follower.follow().exclusiveJoin(kj::mv(ended)));
    follower.take();
  } else if (const auto current = openLog(directories, options.name, file)) {
    copyRest(*current, sink);
  }
  sink.finish(options.name);
  return 0;
}

Usage usage() {
  const auto options = std::make_shared<LogsOptions>();
  return {
      .arguments = {{"name", kVm, "Name of the VM", &options->name, Presence::kRequired}},
      .options = {{"-f,--follow", kFlag, "Go on until the VM ends", &options->follow},
                  portOption(options->port),
                  {"--vmm", kFlag, "The log of supervisor and worker instead of the console's output", &options->vmm},
                  jsonOption(options->json)},
      .carryOut = [options]() { return logs(*options); },
  };
}

}  // namespace

const Verb kLogsVerb = {"logs", "Show what a VM said", usage};

}  // namespace vmmhost::cli
