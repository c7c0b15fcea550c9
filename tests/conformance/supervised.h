// A VM in a supervisor process of its own, by the door that `vmmhost run` uses: launch and the control socket.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/client/control_client.h"
#include "host/client/launch.h"
#include "host/runtime/directories.h"
#include "tests/conformance/context.h"

namespace vmmhost::conformance {

// An Outcome of schemas/host.capnp.
struct Ended {
  std::string kind;
  std::string cause;
  std::string detail;
  int exitCode = 0;
  std::string error;  // its message; empty: none
};
Ended readOutcome(schema::Outcome::Reader outcome);
std::string stateName(schema::VmState state);

struct LaunchOptions {
  std::string name = "vm";
  std::chrono::milliseconds timeout{0};
  bool detached = false;
  bool removeOnEnd = true;
  std::vector<std::string> without;
};

// What a watcher was told.
using Changes = std::vector<std::pair<std::string, std::string>>;  // state, detail

class SupervisedVm {
 public:
  // Launches it; does not wait for it to run.
  SupervisedVm(Context& context, const ConfigText& config, LaunchOptions options = {});
  // Ends the VM if it lives, and waits for the supervisor to be gone.
  ~SupervisedVm();
  SupervisedVm(const SupervisedVm&) = delete;
  SupervisedVm& operator=(const SupervisedVm&) = delete;

  const std::string& name() const { return options_.name; }
  client::ControlClient& starter();
  pid_t pid() const { return supervisor_.pid; }

  void awaitRunning();  // throws the Error with which the start failed
  // Another client, as a verb is one. Waits until the control socket is there.
  std::unique_ptr<client::ControlClient> connect();
  // By the starter.
  Ended wait();
  Ended stop(const std::string& reason = "by the stop verb");
  std::string state();
  // The starter goes away.
  void leave() { starter_.reset(); }
  // Waits for the supervisor process's end; how it ended.
  std::string reap();

  // Watches for as long as `client` lives; what it is told is added to `changes`, which outlives it.
  void watch(client::ControlClient& client, Changes& changes);

  runtime::Directories directories() const;

 private:
  Context& context_;
  LaunchOptions options_;
  client::LaunchedSupervisor supervisor_;
  std::unique_ptr<client::ControlClient> starter_;
};

}  // namespace vmmhost::conformance
