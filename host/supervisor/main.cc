// vmmhost-supervisor: started by `vmmhost run` (host/client/launch.h), never by hand.
#include <capnp/serialize.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "host/client/launch.h"
#include "host/supervisor/supervisor.h"
#include "ipc/jail/spawn/limits.h"

namespace {

using vmmhost::Error;
using vmmhost::ErrorCode;
using vmmhost::Fd;

constexpr off_t kMaxRequestBytes = off_t{8} << 20;

// The launch request, mapped: written and sealed by the command, of the same user.
class RequestFile {
 public:
  explicit RequestFile(Fd file) {
    struct stat info = {};
    const int seals = ::fcntl(file.get(), F_GET_SEALS);
    if (::fstat(file.get(), &info) != 0 || info.st_size <= 0 || info.st_size > kMaxRequestBytes ||
        info.st_size % static_cast<off_t>(sizeof(capnp::word)) != 0 || seals < 0 || (seals & F_SEAL_WRITE) == 0) {
      throw Error(ErrorCode::kInvalidArgument, "descriptor 4 is no launch request",
                  "vmmhost-supervisor is started by `vmmhost run`");
    }
    size_ = static_cast<std::size_t>(info.st_size);
    address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address_ == MAP_FAILED) {
      throw vmmhost::systemError("mapping the launch request", errno);
    }
  }
  ~RequestFile() { ::munmap(address_, size_); }
  RequestFile(const RequestFile&) = delete;
  RequestFile& operator=(const RequestFile&) = delete;

  kj::ArrayPtr<const capnp::word> words() const {
    return kj::arrayPtr(static_cast<const capnp::word*>(address_), size_ / sizeof(capnp::word));
  }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

kj::Promise<void> watchSignals(int fd, kj::UnixEventPort::FdObserver& observer,
                               vmmhost::supervisor::Supervisor& supervisor) {
  auto readable = observer.whenBecomesReadable();
  signalfd_siginfo info;
  while (::read(fd, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    supervisor.signalled(static_cast<int>(info.ssi_signo));
  }
  return readable.then([fd, &observer, &supervisor]() { return watchSignals(fd, observer, supervisor); });
}

int run() {
  // A limit of file sizes (ulimit -f), met by a log, is not to end the VM.
  ::signal(SIGXFSZ, SIG_IGN);
  // A worker's descriptors are placed under high numbers (ipc/jail/spawn/stub.h).
  vmmhost::spawn::raiseOwnLimits();
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    ::sigaddset(&signals, signal);
  }
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const Fd signalFd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signalFd) {
    throw vmmhost::systemError("making a signalfd", errno);
  }
  for (const int fd : {vmmhost::client::kSupervisorControlFd, vmmhost::client::kSupervisorRequestFd}) {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
      throw Error(ErrorCode::kInvalidArgument, "descriptor " + std::to_string(fd) + " is missing",
                  "vmmhost-supervisor is started by `vmmhost run`");
    }
  }
  const RequestFile file{Fd(vmmhost::client::kSupervisorRequestFd)};
  capnp::FlatArrayMessageReader message(file.words());
  const auto request = message.getRoot<vmmhost::schema::LaunchRequest>();

  auto io = kj::setupAsyncIo();
  vmmhost::supervisor::Supervisor supervisor(io, request, Fd(vmmhost::client::kSupervisorControlFd));
  kj::UnixEventPort::FdObserver observer(io.unixEventPort, signalFd.get(), kj::UnixEventPort::FdObserver::OBSERVE_READ);
  auto signalTask = watchSignals(signalFd.get(), observer, supervisor).eagerlyEvaluate(nullptr);
  supervisor.run().wait(io.waitScope);
  return supervisor.exitCode();
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const Error& error) {
    std::fprintf(stderr, "vmmhost-supervisor: %s\n", error.message().c_str());
  } catch (const kj::Exception& exception) {
    std::fprintf(stderr, "vmmhost-supervisor: %s\n", exception.getDescription().cStr());
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "vmmhost-supervisor: %s\n", exception.what());
  }
  return 125;
}
