// The vsock sockets of one VM: the one that clients of the host reach its guest by, and those of services that its
// guest reaches. As Firecracker and Cloud Hypervisor have them: a client connects to <folder>/vsock, sends
// "CONNECT <port>\n", reads "OK <host port>\n", and is then connected to that port of the guest; a guest that connects
// to port P of CID 2 is connected to the socket <folder>/vsock_P.
#pragma once

#include <kj/async-io.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "host/base/log.h"
#include "host/runtime/acceptor.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::vm {

class Vsock {
 public:
  static constexpr std::uint32_t kDefaultCid = 3;         // of a guest: the first that is not taken (vsock(7))
  static constexpr int kMaxConnections = 4096;            // of one VM, as many descriptors as its worker may have more
  static constexpr std::size_t kMaxClients = 64;          // that have not been handed over
  static constexpr std::size_t kMaxLent = 16;             // descriptors, either way, that the worker has not taken yet
  static constexpr auto kClientLimit = 10 * kj::SECONDS;  // from connecting to being handed over

  // Makes <folder>/vsock; nobody is accepted yet. `path` is the same for people. Throws Error.
  Vsock(kj::AsyncIoContext& io, Fd folder, std::string path, Log& log, kj::Duration clientLimit = kClientLimit);
  // Removes it. Clients that have not been handed over are let go.
  ~Vsock();
  Vsock(const Vsock&) = delete;
  Vsock& operator=(const Vsock&) = delete;

  const std::string& path() const { return path_; }
  // For the worker. May outlive this, and is then of no use.
  schema::VsockHost::Client host();
  // The guest can be reached from now on: clients are accepted. Once.
  void connectTo(schema::VsockDevice::Client device);
  // A client of our own that asks for this port of the guest: its end of the connection, non-blocking. Throws Error.
  Fd connect(std::uint32_t port);

 private:
  class Client;
  class HostServer;
  // How many connections are on their way to the worker, which might never take them.
  struct Loans {
    Vsock* owner = nullptr;  // null once it is gone
    std::size_t clients = 0;
    std::size_t services = 0;
  };
  class Loan;
  class LentDescriptor;

  void add(Fd socket);
  // All that there may be wait for the worker: the next ones wait to be accepted.
  bool isFull() const;
  void finish(Client& client);
  void handOver();  // clients that are ready, as many as may be under way
  void noteRefusal(const Error& error);

  kj::AsyncIoContext& io_;
  Log& log_;
  Fd folder_;
  std::string path_;
  kj::Duration clientLimit_;
  std::shared_ptr<Loans> loans_;
  std::optional<schema::VsockDevice::Client> device_;
  std::list<Client> clients_;  // the oldest first
  runtime::Acceptor acceptor_;
  kj::Promise<void> removal_ = nullptr;
  std::optional<kj::TimePoint> lastRefusal_;
  unsigned untoldRefusals_ = 0;
};

}  // namespace vmmhost::vm
