// Serves schemas/host.capnp for one VM, to its starter and to clients of the control socket.
#pragma once

#include <kj/async-io.h>

#include <chrono>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "host/base/log.h"
#include "host/runtime/acceptor.h"
#include "host/vm/vm.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::control {

// What the server shows. Its owner outlives the server.
class Target {
 public:
  virtual ~Target() = default;
  virtual vm::Vm* vm() = 0;                    // null before it is made, or if that failed
  virtual kj::Promise<void> onConsole() = 0;   // vm() is there and has a console; rejected if it never will
  virtual kj::Promise<void> onStarted() = 0;   // rejected with the reason
  virtual kj::Promise<void> onFinished() = 0;  // the VM has ended and all that it held is gone
  virtual const vm::Outcome& outcome() = 0;    // once finished
  // The worker's private memory, for describe(); 0: not known within that time.
  virtual kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds within) = 0;
  virtual void describe(schema::VmInfo::Builder out, std::uint64_t workerPrivateBytes) = 0;
  virtual kj::Promise<void> stop(schema::EndKind kind, std::string reason, int signal) = 0;
  virtual void starterDetached() = 0;  // said detach
  virtual void starterGone() = 0;      // went without
};

class ControlServer {
 public:
  static constexpr std::size_t kMaxClients = 24;

  ControlServer(kj::AsyncIoContext& io, Target& target, Log& log);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // The connection of the process that started the VM.
  void serveStarter(Fd socket);
  // Accepts clients of this user and root from a non-blocking listener.
  void listen(Fd listener);

 private:
  class Session;
  struct Presence;
  struct Client {
    pid_t process = 0;  // that connected; 0: in another PID namespace
    std::list<Client>::iterator position;
    std::shared_ptr<Presence> presence;
    std::unique_ptr<rpc::Connection> connection;
    kj::Promise<void> watch = nullptr;
    kj::Promise<void> deadline = nullptr;
  };

  void serve(Fd socket, pid_t process, bool starter);
  bool makeRoom(pid_t newcomer);
  void greeted(std::string_view theirBuild);  // by the first hello of a connection
  void remove(Client& client);

  kj::AsyncIoContext& io_;
  Target& target_;
  Log& log_;
  std::list<Client> clients_;
  std::list<Client> leaving_;
  std::unique_ptr<runtime::Acceptor> acceptor_;  // once it listens
  std::optional<std::string> loggedBuild_;       // of a client, that the log tells of last
  kj::Promise<void> removal_ = nullptr;
  kj::Promise<void> starterGone_ = nullptr;
};

}  // namespace vmmhost::control
