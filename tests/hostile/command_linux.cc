#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "ipc/jail/spawn/spawn.h"
#include "tests/hostile/command.h"
#include "tests/support/built.h"
#include "vmmhost/fd.h"

namespace vmmhost::hostile {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kOrdinaryId = 1000;
constexpr off_t kDiskBytes = 1 << 20;
constexpr std::size_t kMaxOutput = 1 << 20;
constexpr timespec kDiskTime{1700000000, 0};

bool becomeOrdinary() {
  return ::setgroups(0, nullptr) == 0 && ::setresgid(kOrdinaryId, kOrdinaryId, kOrdinaryId) == 0 &&
         ::setresuid(kOrdinaryId, kOrdinaryId, kOrdinaryId) == 0;
}

// A mount namespace in which the control groups are covered by what cannot be written, as in containers.
bool hideGroups() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", "/sys/fs/cgroup", "tmpfs", MS_RDONLY, nullptr) == 0;
}

bool become(User user) {
  switch (user) {
    case User::kOrdinary:
      return becomeOrdinary();
    case User::kWithoutGroups:
      return hideGroups();
    default:
      return true;
  }
}

std::string commandLineOf(const fs::path& process) {
  std::ifstream file(process / "cmdline", std::ios::binary);
  std::string text;
  // Reads as empty when the process ends meanwhile; an iterator over the buffer would throw.
  std::getline(file, text, '\n');
  return text;
}

// Processes of this very run: its token is in their command lines.
std::string leftProcesses(const std::string& token) {
  std::string found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    if (commandLineOf(entry.path()).find(token) != std::string::npos) {
      found += "process " + entry.path().filename().string() + " is left; ";
    }
  }
  return found;
}

std::string leftFiles(const fs::path& folder) {
  std::string found;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) {
    if (!entry.is_directory(ignored)) {
      found += entry.path().filename().string() + " is left; ";
    }
  }
  return found;
}

std::string makeFolder() {
  std::string pattern = (fs::temp_directory_path() / "vmmhost-hostile-XXXXXX").string();
  return ::mkdtemp(pattern.data());
}

// Where something of the build is for this user: an ordinary one may not be able to enter it, and then ctest has had a
// copy made (tests/e2e/reachable.py).
std::string reached(User user, const char* path) {
  const char* copy = std::getenv("VMMHOST_REACHABLE");
  const bool isNeeded = user == User::kOrdinary && copy != nullptr && fs::exists(copy);
  return isNeeded ? fs::canonical(copy) / path : fs::path(tests::built(path));
}

}  // namespace

Surroundings::Surroundings(User user)
    : user_(user),
      command_(reached(user, "stage/bin/vmmhost")),
      plugins_(reached(user, "lib/hostile-plugins")),
      folder_(makeFolder()),
      token_(folder_.substr(folder_.rfind('-') + 1)),
      traps_(token_) {
  disk_ = folder_ + "/disk.img";
  const Fd disk(::open(disk_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  const std::array<timespec, 2> times{kDiskTime, kDiskTime};
  fs::create_directory(folder_ + "/run");
  fs::create_directory(folder_ + "/state");
  for (const std::string& path : {folder_, folder_ + "/run", folder_ + "/state"}) {
    ::chmod(path.c_str(), 0700);
  }
  bool isReady = ::ftruncate(disk.get(), kDiskBytes) == 0 && ::futimens(disk.get(), times.data()) == 0;
  if (user_ == User::kOrdinary) {
    for (const std::string& path : {folder_, folder_ + "/run", folder_ + "/state", disk_}) {
      isReady = ::chown(path.c_str(), kOrdinaryId, kOrdinaryId) == 0 && isReady;
    }
  }
  if (!isReady) {
    std::abort();
  }
}

Surroundings::~Surroundings() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void Surroundings::execute(const std::vector<std::string>& given, int output) const {
  if (!become(user_) || ::chdir(folder_.c_str()) != 0) {
    ::_exit(99);
  }
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  const std::string runtime = "XDG_RUNTIME_DIR=" + folder_ + "/run";
  const std::string state = "VMMHOST_STATE_DIR=" + folder_ + "/state";
  const std::string home = "HOME=" + folder_;
  const std::string plugins = "VMMHOST_PLUGIN_PATH=" + plugins_;
  std::vector<char*> arguments{const_cast<char*>("vmmhost")};
  for (const std::string& argument : given) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  std::vector<char*> environment;
  for (const char* variable : {runtime.c_str(), state.c_str(), home.c_str(), "PATH=/usr/bin:/bin", plugins.c_str()}) {
    environment.push_back(const_cast<char*>(variable));
  }
  environment.push_back(nullptr);
  ::execve(command_.c_str(), arguments.data(), environment.data());
  ::_exit(98);
}

void Surroundings::configure(const std::string& attack, const std::string& moment, Jail jail,
                             const std::string& forged) const {
  const std::string configuration = folder_ + "/vm.json";
  const auto option = [](const std::string& name, const std::string& value) {
    return R"({"name":")" + name + R"(","value":")" + value + "\"}";
  };
  std::ofstream(configuration)
      << R"({"boot":{"kernel":"vm.json"},"memory":{"size":"64M"},"disks":[{"file":"disk.img"}],"platform":{"options":[)"
      << option("attack", attack) << ',' << option("moment", moment) << ',' << option("jail", jailName(jail)) << ','
      << option("token", token_) << (forged.empty() ? "" : ',' + option("forge", forged)) << "]}}";
  ::chmod(configuration.c_str(), 0644);
}

Result Surroundings::command(const std::vector<std::string>& arguments, const std::function<void()>& meanwhile) const {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return {};
  }
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    execute(arguments, writer.get());
  }
  writer.reset();
  if (meanwhile) {
    meanwhile();
  }
  Result result;
  std::array<char, 4096> block{};
  for (ssize_t got = 0; (got = ::read(reader.get(), block.data(), block.size())) > 0;) {
    if (result.output.size() < kMaxOutput) {
      result.output.append(block.data(), static_cast<std::size_t>(got));
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  result.exitCode = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

namespace {

const std::vector<std::string> kRun = {"run",       "--backend", "hostile", "--json", "--rm",
                                       "--timeout", "20",        "-f",      "vm.json"};

}  // namespace

Result Surroundings::run(const Attack& attack, Moment moment, Jail jail, const std::function<void()>& meanwhile) {
  configure(attack.name, momentName(moment), jail, {});
  return command(kRun, meanwhile);
}

Result Surroundings::runForged(const std::string& part) {
  configure("neighbour", momentName(Moment::kStart), Jail::kSystem, part);
  return command(kRun);
}

std::string Surroundings::damage() const {
  std::string found;
  // Non-blocking: a lease of someone else would make it fail.
  const Fd disk(::open(disk_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  struct stat status {};
  struct flock lock {};
  lock.l_type = F_WRLCK;
  if (!disk || ::fstat(disk.get(), &status) != 0) {
    return "the disk cannot be opened: " + std::string(std::strerror(errno));
  }
  const uid_t owner = user_ == User::kOrdinary ? kOrdinaryId : ::geteuid();
  found += status.st_size != kDiskBytes ? "the disk's size has changed; " : "";
  // One block may be begun.
  found += status.st_blocks * 512 > kDiskBytes + status.st_blksize ? "the disk takes more than its size; " : "";
  found += (status.st_mode & 07777) != 0600 ? "the disk's mode has changed; " : "";
  found += status.st_uid != owner ? "the disk's owner has changed; " : "";
  found += status.st_mtim.tv_sec != kDiskTime.tv_sec ? "the disk's time has changed; " : "";
  found += ::flistxattr(disk.get(), nullptr, 0) > 0 ? "the disk has attributes; " : "";
  found += ::flock(disk.get(), LOCK_EX | LOCK_NB) != 0 ? "the disk is locked; " : "";
  found += ::fcntl(disk.get(), F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK ? "the disk has a lock; " : "";
  return found + leftProcesses(token_) + leftFiles(folder_ + "/run") + traps_.damage();
}

Neighbour::Neighbour(User user, const char* attack, Jail jail) : Surroundings(user) {
  configure(attack, momentName(Moment::kStart), jail, {});
  command({"run", "--backend", "hostile", "--detach", "--name", "neighbour", "-f", "vm.json"});
}

Neighbour::~Neighbour() {
  command({"rm", "--force", "neighbour"});
}

bool Neighbour::answers() const {
  return command({"inspect", "neighbour"}).output.find("\"state\": \"running\"") != std::string::npos;
}

std::string Neighbour::stop() const {
  const Result stopped = command({"stop", "neighbour"});
  const Result waited = command({"wait", "neighbour"});
  const bool isRight = stopped.exitCode == 0 && waited.exitCode == 143;
  return isRight ? damage() : stopped.output + waited.output;
}

const char* userSuffix(User user) {
  return user == User::kOrdinary ? "asOrdinaryUser" : user == User::kWithoutGroups ? "withoutGroups" : "asCaller";
}

std::string whyNot(User user) {
  if (user == User::kCaller) {
    return "";
  }
  if (::geteuid() != 0) {
    return user == User::kOrdinary ? "the caller is one already" : "only root can hide the control groups";
  }
  if (user == User::kWithoutGroups) {
    return "";
  }
  const std::string command = reached(User::kOrdinary, "stage/bin/vmmhost");
  const std::string plugins = reached(User::kOrdinary, "lib/hostile-plugins");
  const pid_t child = ::fork();
  if (child == 0) {
    const bool canUse =
        becomeOrdinary() && ::access(command.c_str(), X_OK) == 0 && ::access(plugins.c_str(), R_OK | X_OK) == 0;
    ::_exit(canUse ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0 ? ""
                     : "the build lies in a folder that is closed to other users; run it by ctest, which makes a copy";
}

bool hasControlGroups(User user) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool isReady = become(user);
    auto group = spawn::Cgroup::make("hostile-" + std::to_string(::getpid()), std::uint64_t{64} << 20, 8);
    const bool hasGroup = isReady && group.why().empty();
    group.remove();
    ::_exit(hasGroup ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0;
}

}  // namespace vmmhost::hostile
