#include "host/client/launch.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "host/base/posix_spawn.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/error.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace vmmhost::client {

namespace {

// The same file under a number that no dup2 of the start overwrites.
Fd outOfTheWay(const Fd& fd) {
  const int copy = ::fcntl(fd.get(), F_DUPFD_CLOEXEC, kSupervisorRequestFd + 1);
  if (copy < 0) {
    throw systemError("duplicating a descriptor", errno);
  }
  return Fd(copy);
}

bool startsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

bool isPassedOn(std::string_view variable) {
  const std::string_view name = variable.substr(0, variable.find('='));
  static constexpr std::array<std::string_view, 8> kNames = {"PATH",          "HOME",         "LD_LIBRARY_PATH",
                                                             "ASAN_OPTIONS",  "LSAN_OPTIONS", "TSAN_OPTIONS",
                                                             "UBSAN_OPTIONS", "MSAN_OPTIONS"};
  for (const std::string_view known : kNames) {
    if (name == known) {
      return true;
    }
  }
  return startsWith(name, "XDG_") || startsWith(name, "VMMHOST_");
}

}  // namespace

std::vector<std::string> supervisorEnvironment(const char* const* environment) {
  std::vector<std::string> kept;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    if (isPassedOn(*environment)) {
      kept.emplace_back(*environment);
    }
  }
  return kept;
}

Fd sealedRequest(schema::LaunchRequest::Reader request) {
  // Copied into a message of its own: what the caller built may have holes and foreign roots.
  capnp::MallocMessageBuilder message;
  message.setRoot(request);
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  Fd file(::memfd_create("vmmhost-launch", kFlags | MFD_NOEXEC_SEAL));
  if (!file && errno == EINVAL) {
    file.reset(::memfd_create("vmmhost-launch", kFlags));
  }
  if (!file) {
    throw systemError("making a memfd", errno);
  }
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::pwrite(file.get(), bytes.begin() + done, bytes.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno != EINTR) {
      throw systemError("writing the launch request", errno);
    }
    done += count < 0 ? 0 : static_cast<std::size_t>(count);
  }
  if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
    throw systemError("sealing the launch request", errno);
  }
  return file;
}

LaunchedSupervisor launchSupervisor(const std::string& program, schema::LaunchRequest::Reader request) {
  const Fd requestFile = outOfTheWay(sealedRequest(request));
  rpc::SocketPair sockets = rpc::makeSocketPair();
  const Fd remote = outOfTheWay(sockets.remote);
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) {
    throw systemError("opening /dev/null", errno);
  }
  null = outOfTheWay(null);

  SpawnFileActions actions;
  actions.duplicate(null.get(), STDIN_FILENO);
  actions.duplicate(null.get(), STDOUT_FILENO);
  if (::secure_getenv("VMMHOST_DEBUG") == nullptr) {
    actions.duplicate(null.get(), STDERR_FILENO);
  }
  actions.duplicate(remote.get(), kSupervisorControlFd);
  actions.duplicate(requestFile.get(), kSupervisorRequestFd);
  actions.closeFrom(kSupervisorRequestFd + 1);
  const SpawnAttributes attributes;

  std::vector<std::string> variables = supervisorEnvironment(environ);
  std::vector<char*> environment;
  for (std::string& variable : variables) {
    environment.push_back(variable.data());
  }
  environment.push_back(nullptr);
  std::string name = program.substr(program.rfind('/') + 1);
  char* const arguments[] = {name.data(), nullptr};

  LaunchedSupervisor supervisor;
  const int code =
      ::posix_spawn(&supervisor.pid, program.c_str(), actions.get(), attributes.get(), arguments, environment.data());
  if (code != 0) {
    const Error cause = systemError("executing " + program, code);
    throw Error(cause.retryable() ? ErrorCode::kResourceExhausted : ErrorCode::kInternal, cause.message(),
                "the installation is incomplete or damaged: install vmmhost again", cause.retryable());
  }
  // The child is not reaped before this process does it, so that its number is still its own.
  supervisor.process.reset(static_cast<int>(::syscall(SYS_pidfd_open, supervisor.pid, 0)));
  supervisor.control = std::move(sockets.local);
  return supervisor;
}

void killSupervisor(const LaunchedSupervisor& supervisor) noexcept {
  if (supervisor.process) {
    ::syscall(SYS_pidfd_send_signal, supervisor.process.get(), SIGKILL, nullptr, 0);
  }
}

std::string reapSupervisor(LaunchedSupervisor& supervisor, int limitMs) {
  if (!supervisor.process) {
    return {};
  }
  pollfd watched{supervisor.process.get(), POLLIN, 0};
  siginfo_t info{};
  if (::poll(&watched, 1, limitMs) <= 0 ||
      ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(supervisor.process.get()), &info, WEXITED | WNOHANG) !=
          0 ||
      info.si_pid == 0) {
    return {};
  }
  supervisor.process.reset();
  if (info.si_code == CLD_EXITED) {
    return "exited with code " + std::to_string(info.si_status);
  }
  const char* name = ::sigdescr_np(info.si_status);
  return "was ended by signal " + std::to_string(info.si_status) +
         (name == nullptr ? "" : std::string(" (") + name + ")");
}

}  // namespace vmmhost::client
