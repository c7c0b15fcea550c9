#include "tests/conformance/context.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "host/config/json_writer.h"

namespace vmmhost::conformance {

namespace {

std::string quoted(const std::string& text) {
  std::string out;
  config::appendJsonString(out, text);
  return out;
}

}  // namespace

void checkContains(std::string_view text, std::string_view part, const std::string& what) {
  check(text.find(part) != std::string_view::npos,
        what + " does not have \"" + std::string(part) + "\" in it: \"" + std::string(text.substr(0, 400)) + '"');
}

const char* stateText(State state) {
  switch (state) {
    case State::kPreparing:
      return "preparing";
    case State::kCreated:
      return "created";
    case State::kRunning:
      return "running";
    case State::kPaused:
      return "paused";
    case State::kStopping:
      return "stopping";
    case State::kEnded:
      return "ended";
  }
  return "unknown";
}

Context::Context(const Subject& subject, const Kit& kit, std::string folder)
    : subject_(subject), kit_(kit), folder_(std::move(folder)), io_(kj::setupAsyncIo()), hostPids_{::getpid()} {
}

Context::~Context() = default;

std::string Context::pluginPath() const {
  return subject_.path.substr(0, subject_.path.rfind('/'));
}

std::string Context::guest(const std::string& name) const {
  return kit_.guests + '/' + name + ".elf";
}

std::string Context::config(const ConfigText& text) const {
  return R"({"boot":{"kernel":)" + quoted(guest(text.guest)) + (text.boot.empty() ? "" : "," + text.boot) +
         R"(},"memory":)" + text.memory + (text.members.empty() ? "" : "," + text.members) + '}';
}

std::string Context::file(const std::string& name, std::string_view content) const {
  const std::string path = folder_ + '/' + name;
  std::ofstream out(path, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  check(out.good(), "cannot write " + path);
  return path;
}

std::unique_ptr<Host> Context::makeHost() const {
  HostOptions options;
  options.pluginPath = pluginPath();
  options.logFile = folder_ + "/host.log";
  return std::make_unique<Host>(options);
}

Host& Context::host() {
  if (!host_) {
    host_ = makeHost();
  }
  return *host_;
}

VmOptions Context::options() const {
  VmOptions options;
  options.backend = subject_.name;
  options.workingDirectory = folder_;
  options.vsockFolder = folder_;
  return options;
}

std::future<std::unique_ptr<OwnedVm>> Context::starting(const ConfigText& text, const VmOptions& options) {
  return host().start(config(text), options);
}

std::unique_ptr<OwnedVm> Context::start(const ConfigText& text, const VmOptions& options) {
  return get(starting(text, options), "starting the VM");
}

std::unique_ptr<OwnedVm> Context::startJson(const std::string& json) {
  return get(host().start(json, options()), "starting the VM");
}

void Context::work(std::chrono::milliseconds time) {
  io_.provider->getTimer().afterDelay(time.count() * kj::MILLISECONDS).wait(io_.waitScope);
}

Error errorOf(const std::string& what, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  fail(what + " was not refused");
}

Error refused(ErrorCode code, const std::vector<std::string>& names, const std::string& what,
              const std::function<void()>& action) {
  const Error error = errorOf(what, action);
  check(error.code() == code, what + " was refused with the code " + std::string(errorCodeName(error.code())) +
                                  ", expected " + std::string(errorCodeName(code)) + ": " + error.message());
  for (const std::string& name : names) {
    checkContains(error.message(), name, what + ": the message");
  }
  return error;
}

std::string text(const Error& error) {
  return std::string(errorCodeName(error.code())) + ": " + error.message();
}

void waitUntil(const std::function<bool()>& condition, const std::string& what, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    check(std::chrono::steady_clock::now() < end, what + ": not within " + std::to_string(limit.count()) + " ms");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace vmmhost::conformance
