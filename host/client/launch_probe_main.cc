// Stands for a supervisor in launch_test: says on descriptor 3 what it was started with, then ends as it is told to by
// the VM's name in the request.
#include <capnp/serialize.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "host/client/launch.h"

extern char** environ;

namespace {

std::string openDescriptors() {
  std::vector<int> numbers;
  DIR* folder = ::opendir("/proc/self/fd");
  while (const dirent* entry = ::readdir(folder)) {
    const int number = std::atoi(entry->d_name);
    if (entry->d_name[0] != '.' && number != ::dirfd(folder)) {
      numbers.push_back(number);
    }
  }
  ::closedir(folder);
  std::sort(numbers.begin(), numbers.end());
  std::string text;
  for (const int number : numbers) {
    text += (text.empty() ? "" : ",") + std::to_string(number);
  }
  return text;
}

bool isNull(int fd) {
  struct stat here {};
  struct stat null {};
  return ::fstat(fd, &here) == 0 && ::stat("/dev/null", &null) == 0 && here.st_rdev == null.st_rdev;
}

std::string signalState() {
  sigset_t blocked;
  ::sigprocmask(SIG_SETMASK, nullptr, &blocked);
  for (int signal = 1; signal < 32; ++signal) {
    struct sigaction action {};
    ::sigaction(signal, nullptr, &action);
    // Handlers are a sanitizer's own: exec leaves none.
    if (::sigismember(&blocked, signal) == 1 || action.sa_handler == SIG_IGN) {
      return "signal " + std::to_string(signal) + " is not as it should be";
    }
  }
  return "default";
}

}  // namespace

int main() {
  struct stat status {};
  if (::fstat(vmmhost::client::kSupervisorRequestFd, &status) != 0) {
    return 1;
  }
  std::vector<capnp::word> words(static_cast<std::size_t>(status.st_size) / sizeof(capnp::word));
  if (::read(vmmhost::client::kSupervisorRequestFd, words.data(), words.size() * sizeof(capnp::word)) !=
      status.st_size) {
    return 1;
  }
  capnp::FlatArrayMessageReader message(kj::arrayPtr(words.data(), words.size()));
  const auto request = message.getRoot<vmmhost::schema::LaunchRequest>();
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SEAL;
  const bool sealed = (::fcntl(vmmhost::client::kSupervisorRequestFd, F_GET_SEALS) & kSeals) == kSeals;
  std::string text = "fds " + openDescriptors() + "\nnull " + (isNull(0) && isNull(1) && isNull(2) ? "yes" : "no") +
                     "\nleader " + (::getsid(0) == ::getpid() ? "yes" : "no") + "\nsignals " + signalState() +
                     "\nsealed " + (sealed ? "yes" : "no") + "\nbackend " + request.getBackend().cStr() + "\nname " +
                     request.getConfig().getName().cStr() + "\n";
  for (char** variable = environ; *variable != nullptr; ++variable) {
    text += "env " + std::string(*variable) + "\n";
  }
  const ssize_t written = ::write(vmmhost::client::kSupervisorControlFd, text.data(), text.size());
  if (request.getConfig().getName() == "kill") {
    ::raise(SIGKILL);
  }
  return written == static_cast<ssize_t>(text.size()) ? 7 : 1;
}
