// What a case works with: the backend under test, guests, folders of its own, and waiting that has a deadline.
#pragma once

#include <kj/async-io.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "host/client/control_client.h"
#include "tests/conformance/subject.h"
#include "vmmhost/host.h"

namespace vmmhost::conformance {

// What a backend does otherwise than it should.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The longest wait for one thing that has to happen. Far above what any machine needs: a loaded one is no failure.
inline constexpr std::chrono::milliseconds kPatience{40000};

[[noreturn]] inline void fail(const std::string& message) {
  throw Failure(message);
}
inline void check(bool condition, const std::string& message) {
  if (!condition) {
    fail(message);
  }
}
template <typename T>
std::string shown(const T& value) {
  if constexpr (std::is_convertible_v<T, std::string>) {
    return '"' + std::string(value) + '"';
  } else {
    return std::to_string(value);
  }
}
template <typename Found, typename Expected>
void checkEqual(const Found& found, const Expected& expected, const std::string& what) {
  check(found == expected, what + " is " + shown(found) + ", expected " + shown(expected));
}
void checkContains(std::string_view text, std::string_view part, const std::string& what);

const char* stateText(State state);

template <typename T>
T get(std::future<T> future, const std::string& what, std::chrono::milliseconds limit = kPatience) {
  if (future.wait_for(limit) != std::future_status::ready) {
    fail(what + ": not within " + std::to_string(limit.count()) + " ms");
  }
  return future.get();
}

// A VM's configuration as JSON.
struct ConfigText {
  std::string guest = "loop";  // a bare-metal guest
  std::string boot;            // further members of "boot", e.g. R"("cmdline":"x")"
  std::string memory = R"({"size":"32M"})";
  std::string members;  // further members of the whole
};

class Context {
 public:
  // `folder` is the case's own; it has the folders run and state, which the environment names.
  Context(const Subject& subject, const Kit& kit, std::string folder);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Subject& backend() const { return subject_; }
  const Kit& kit() const { return kit_; }
  const std::string& folder() const { return folder_; }
  std::string runtimeFolder() const { return folder_ + "/run"; }
  std::string stateFolder() const { return folder_ + "/state"; }
  std::string pluginPath() const;

  std::string guest(const std::string& name) const;
  std::string config(const ConfigText& text) const;
  // A file of the case's own; its path.
  std::string file(const std::string& name, std::string_view content) const;

  // Owned VMs, through vmmhost/host.h. The host lives as long as the case; makeHost() makes another.
  Host& host();
  std::unique_ptr<Host> makeHost() const;
  VmOptions options() const;
  std::future<std::unique_ptr<OwnedVm>> starting(const ConfigText& text, const VmOptions& options);
  std::unique_ptr<OwnedVm> start(const ConfigText& text, const VmOptions& options);
  std::unique_ptr<OwnedVm> start(const ConfigText& text) { return start(text, options()); }
  // The same from JSON as it stands.
  std::unique_ptr<OwnedVm> startJson(const std::string& json);

  // The event loop of this thread, for supervised VMs.
  kj::AsyncIoContext& io() { return io_; }
  template <typename T>
  T await(kj::Promise<T> promise, const std::string& what, std::chrono::milliseconds limit = kPatience) {
    // The timer's clock stands still while nobody turns the loop, as when a console is read.
    io_.waitScope.poll();
    return client::await(io_, rpc::withDeadline(io_.provider->getTimer(), limit, what, kj::mv(promise)));
  }
  // Lets the event loop work for a while.
  void work(std::chrono::milliseconds time);

  // What the result tells besides having passed, e.g. "served" or the message of a refusal.
  void observe(std::string what) { observed_ = std::move(what); }
  const std::string& observed() const { return observed_; }

  // Processes that VMs are hosted by: control groups are named after them.
  void addHostPid(pid_t pid) { hostPids_.push_back(pid); }
  const std::vector<pid_t>& hostPids() const { return hostPids_; }

 private:
  const Subject& subject_;
  const Kit& kit_;
  std::string folder_;
  kj::AsyncIoContext io_;
  std::unique_ptr<Host> host_;
  std::string observed_;
  std::vector<pid_t> hostPids_;
};

// The Error that `action` throws. Fails if it throws none.
Error errorOf(const std::string& what, const std::function<void()>& action);
// Checks its code, and that message holds all of `names`.
Error refused(ErrorCode code, const std::vector<std::string>& names, const std::string& what,
              const std::function<void()>& action);
// "CODE: MESSAGE", for what is observed.
std::string text(const Error& error);

// Waits for what nothing tells of, such as another process's end.
void waitUntil(const std::function<bool()>& condition, const std::string& what,
               std::chrono::milliseconds limit = kPatience);

}  // namespace vmmhost::conformance
