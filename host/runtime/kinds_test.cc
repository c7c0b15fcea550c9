#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "host/config/vm_config.h"
#include "host/runtime/directories.h"
#include "host/runtime/entry_folders.h"
#include "host/runtime/name_lock.h"
#include "host/runtime/testing.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;
using namespace std::chrono_literals;

const EntryName kVmA = vmName("a");
const EntryName kNetworkA = networkName("a");

TEST(EntryNameTest, folderOfAVm_isItsName) {
  EXPECT_EQ(kVmA.folder(), "a");
  EXPECT_EQ(entryOfFolder(Kind::kVm, "a"), kVmA);
}

TEST(EntryNameTest, folderOfANetwork_isOneThatNoVmCanHave) {
  for (const std::string& text : {std::string("a"), std::string(64, 'x'), std::string("uids")}) {
    const EntryName name = networkName(text);
    EXPECT_THROW(config::validateVmName(name.folder()), Error) << name.folder();
    EXPECT_FALSE(entryOfFolder(Kind::kVm, name.folder())) << name.folder();
    EXPECT_EQ(entryOfFolder(Kind::kNetwork, name.folder()), name);
  }
  EXPECT_FALSE(entryOfFolder(Kind::kNetwork, "a"));
}

TEST(EntryNameTest, foldersOfNone_areNoEntries) {
  for (const char* folder : {"", ".", "..", ".uids", ".owned", "network@", "network@.a", "network@-a", "network@a@b",
                             "network@network@a", "Network@a", "a@b"}) {
    EXPECT_FALSE(entryOfFolder(Kind::kVm, folder)) << folder;
    EXPECT_FALSE(entryOfFolder(Kind::kNetwork, folder)) << folder;
  }
  EXPECT_FALSE(entryOfFolder(Kind::kNetwork, "network@" + std::string(65, 'x')));
}

TEST(EntryNameTest, namesOfNetworks_areAsThoseOfVms) {
  for (const std::string& text : {std::string(), std::string(".."), std::string("a/b"), std::string("-rf"),
                                  std::string("a:b"), std::string("a\0b", 3), std::string(65, 'x')}) {
    EXPECT_FALSE(vmName(text).isValid()) << text;
    EXPECT_FALSE(networkName(text).isValid()) << text;
  }
  EXPECT_TRUE(networkName("lan0.b-c_D").isValid());
  try {
    networkName("x\x1b").validate();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "name: \"x\\x1b\" is not a name for a network");
  }
}

// A VM and a network, both called "a".
class KindsTest : public RuntimeTest {
 protected:
  std::unique_ptr<Process> supervisor(const EntryName& name, Record record = {}) {
    return std::make_unique<Process>([this, name, record] {
      Reservation reservation = Reservation::take(directories, name);
      reservation.writeRecord(record);
      reservation.writeState("config.json", "{}");
      return reservation;
    });
  }
  std::string names(Kind kind) const {
    std::string all;
    for (const Entry& entry : list(directories, kind)) {
      EXPECT_EQ(entry.name.kind, kind);
      all += entry.name.text + (entry.alive ? "+" : "-");
    }
    return all;
  }
  // A folder as mkdir of a supervisor makes it, with files.
  static void make(const fs::path& folder, const std::vector<std::string>& files) {
    fs::create_directory(folder);
    ::chmod(folder.c_str(), 0700);
    for (const std::string& file : files) {
      write(folder / file, "precious");
    }
  }
  static const EntryName& otherOf(const EntryName& name) { return name == kVmA ? kNetworkA : kVmA; }
  fs::path runOf(const EntryName& name) const { return run(name.folder()); }
  fs::path stateOf(const EntryName& name) const { return state(name.folder()); }
};

TEST_F(KindsTest, oneName_isTakenOnceForEachKind) {
  const auto vm = supervisor(kVmA);
  const auto network = supervisor(kNetworkA);
  ASSERT_EQ(vm->answer(), 'x');
  ASSERT_EQ(network->answer(), 'x');
  EXPECT_EQ(names(Kind::kVm), "a+");
  EXPECT_EQ(names(Kind::kNetwork), "a+");
  EXPECT_EQ(errorOf([&] { Reservation::take(directories, kVmA); }).message(), "a VM called a is running");
  EXPECT_EQ(errorOf([&] { Reservation::take(directories, kNetworkA); }).message(), "a network called a is running");
  EXPECT_EQ(errorOf([&] { remove(directories, kNetworkA); }).message(), "the network a is running");
}

TEST_F(KindsTest, namesThatNobodyHas_areLookedForAmongTheirKind) {
  const Reservation vm = Reservation::take(directories, vmName("lan0"));
  const Error error = errorOf([&] { find(directories, networkName("lan0")); });
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_EQ(error.message(), "there is no network called \"lan0\"");
  EXPECT_EQ(error.hint(), "vmmhost network ls lists all");
  const Reservation network = Reservation::take(directories, networkName("lan1"));
  EXPECT_EQ(errorOf([&] { find(directories, networkName("lan0")); }).hint(), "there is lan1");
  EXPECT_EQ(errorOf([&] { find(directories, vmName("lan1")); }).hint(), "there is lan0");
}

TEST_F(KindsTest, hostileNamesOfNetworks_areRefusedAndLeaveNothing) {
  for (const std::string& text : {std::string(), std::string("../x"), std::string("a/b"), std::string(".uids"),
                                  std::string("a\0b", 3), std::string(65, 'x')}) {
    const EntryName name = networkName(text);
    EXPECT_EQ(errorOf([&] { Reservation::take(directories, name); }).code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(errorOf([&] { find(directories, name); }).code(), ErrorCode::kNotFound);
    EXPECT_EQ(errorOf([&] { remove(directories, name); }).code(), ErrorCode::kNotFound);
    EXPECT_EQ(errorOf([&] { connectControl(directories, name); }).code(), ErrorCode::kNotFound);
    EXPECT_EQ(errorOf([&] { openState(directories, name, "exit.json"); }).code(), ErrorCode::kNotFound);
  }
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

TEST_F(KindsTest, controlSocket_isThatOfTheKind) {
  Reservation vm = Reservation::take(directories, kVmA);
  Reservation network = Reservation::take(directories, kNetworkA);
  const Fd vmListener = vm.listenControl();
  EXPECT_NE(errorOf([&] { connectControl(directories, kNetworkA); }).message().find("the network a"),
            std::string::npos);
  const Fd networkListener = network.listenControl();
  for (const auto& [name, listener] : {std::pair(kVmA, &vmListener), std::pair(kNetworkA, &networkListener)}) {
    const Fd client = awaitControl(directories, name, 0ms);
    const Fd server(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    EXPECT_TRUE(server) << name.folder();
  }
  network.release(true);
  EXPECT_NO_THROW(connectControl(directories, kVmA));
  EXPECT_EQ(errorOf([&] { connectControl(directories, kNetworkA); }).code(), ErrorCode::kNotFound);
}

TEST_F(KindsTest, deadOne_isReapedByWhoListsItsKind_andNotTheOther) {
  for (const EntryName& dead : {kVmA, kNetworkA}) {
    const EntryName& other = otherOf(dead);
    const auto survivor = supervisor(other);
    Record record;
    record.supervisorPid = 4711;
    supervisor(dead, record)->end(SIGKILL);
    // Who looks for the other kind neither trips over it nor touches it.
    EXPECT_EQ(names(other.kind), "a+");
    EXPECT_TRUE(find(directories, other).alive);
    EXPECT_TRUE(fs::exists(runOf(dead) / "record"));
    EXPECT_FALSE(fs::exists(stateOf(dead) / "exit.json"));
    EXPECT_EQ(names(dead.kind), "a-");
    EXPECT_FALSE(fs::exists(runOf(dead)));
    EXPECT_NE(find(directories, dead).exitJson.value_or("").find("process 4711"), std::string::npos);
    EXPECT_EQ(names(other.kind), "a+");
    EXPECT_FALSE(fs::exists(stateOf(other) / "exit.json"));
    survivor->end(SIGKILL);
    remove(directories, other);
    EXPECT_EQ(names(dead.kind), "a-");
    remove(directories, dead);
    EXPECT_TRUE(fs::is_empty(root / "run"));
    EXPECT_TRUE(fs::is_empty(root / "state"));
  }
}

TEST_F(KindsTest, deadOne_doesNotKeepTheOtherFromItsName) {
  for (const EntryName& dead : {kVmA, kNetworkA}) {
    supervisor(dead)->end(SIGKILL);
    const EntryName& other = otherOf(dead);
    {
      const Reservation reservation = Reservation::take(directories, other);
      EXPECT_TRUE(find(directories, other).alive);
    }
    EXPECT_EQ(errorOf([&] { remove(directories, other); }).code(), ErrorCode::kNotFound);
    EXPECT_TRUE(fs::exists(runOf(dead)));
    EXPECT_EQ(read(stateOf(dead) / "config.json"), "{}");
    EXPECT_EQ(errorOf([&] { Reservation::take(directories, dead); }).hint(),
              dead == kVmA ? "vmmhost rm a" : "vmmhost network rm a");
    remove(directories, dead);
  }
}

TEST_F(KindsTest, removeOnEnd_removesTheOneOnly) {
  const auto vm = supervisor(kVmA);
  Record record;
  record.removeOnEnd = true;
  supervisor(kNetworkA, record)->end(SIGKILL);
  EXPECT_EQ(names(Kind::kNetwork), "");
  EXPECT_FALSE(fs::exists(stateOf(kNetworkA)));
  EXPECT_EQ(names(Kind::kVm), "a+");
  EXPECT_EQ(read(stateOf(kVmA) / "config.json"), "{}");
}

TEST_F(KindsTest, controlGroups_areTheEntrysOwn) {
  std::map<std::string, std::string> groups;  // the place of those of each
  for (const char* hierarchy : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"}) {
    if (fs::exists(fs::path(hierarchy) / "cgroup.procs") && groups.empty()) {
      for (const EntryName& name : {kVmA, kNetworkA}) {
        const std::string path =
            std::string(hierarchy) + "/vmmhost-" + name.folder() + '-' + std::to_string(::getpid());
        if (::mkdir(path.c_str(), 0755) == 0) {
          groups[name.folder()] = path;
        }
      }
    }
  }
  if (groups.size() != 2) {
    GTEST_SKIP() << "no cgroup can be made here";
  }
  for (const EntryName& name : {kVmA, kNetworkA}) {
    Record record;
    record.cgroups = {groups[name.folder()]};
    supervisor(name, record)->end(SIGKILL);
  }
  EXPECT_EQ(names(Kind::kNetwork), "a-");
  EXPECT_FALSE(fs::exists(groups[kNetworkA.folder()]));
  EXPECT_TRUE(fs::exists(groups[kVmA.folder()]));
  EXPECT_EQ(names(Kind::kVm), "a-");
  EXPECT_FALSE(fs::exists(groups[kVmA.folder()]));
}

// As when a folder was copied from one place to the other.
TEST_F(KindsTest, recordOfAnotherKind_isNotBelieved) {
  Record record;
  record.removeOnEnd = true;
  supervisor(kVmA, record)->end(SIGKILL);
  supervisor(kNetworkA)->end(SIGKILL);
  fs::copy_file(runOf(kVmA) / "record", runOf(kNetworkA) / "record", fs::copy_options::overwrite_existing);
  EXPECT_EQ(names(Kind::kNetwork), "a-");
}

TEST_F(KindsTest, changeOfTheOne_holdsUpNobodyAtTheOther) {
  const Process holder([this] { return NameLock::take(directories, kNetworkA); });
  ASSERT_EQ(holder.answer(), 'x');
  EXPECT_NO_THROW(NameLock::take(directories, kVmA, 0ms));
  const Error error = errorOf([&] { NameLock::take(directories, kNetworkA, 0ms); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_EQ(error.message().rfind("another command is changing the network \"a\": process ", 0), 0u) << error.message();
  const std::vector<Entry> entries = list(directories, Kind::kNetwork);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_TRUE(entries[0].isChanging);
}

// As before there were networks: what a supervisor of then left.
TEST_F(KindsTest, layoutOfBefore_isReadAsVms) {
  make(run("died"), {"lock"});
  write(run("died") / "record", "name=died\nbackend=fake\nsupervisorPid=4711\nstartedUnixMs=1\nremoveOnEnd=0\n");
  make(state("died"), {"console.log"});
  make(state("ended"), {});
  write(state("ended") / "exit.json", "{}");
  EXPECT_EQ(names(Kind::kNetwork), "");
  EXPECT_TRUE(fs::exists(run("died") / "record"));
  EXPECT_EQ(names(Kind::kVm), "died-ended-");
  EXPECT_NE(find(directories, vmName("died")).exitJson.value_or("").find("4711"), std::string::npos);
  EXPECT_EQ(find(directories, vmName("ended")).exitJson, "{}");
}

TEST_F(KindsTest, halfMadeNetworks_areCleanedUp) {
  make(run("network@folder"), {});
  make(run("network@locked"), {"lock"});
  make(run("network@both"), {"lock", "record"});
  make(state("network@both"), {});
  make(state("network@empty"), {});
  make(state("network@torn"), {".exit.json.new"});
  make(state("network@torn2"), {".config.json.new"});
  EXPECT_EQ(names(Kind::kVm), "");
  EXPECT_EQ(std::distance(fs::directory_iterator(root / "run"), {}), 3);
  EXPECT_EQ(names(Kind::kNetwork), "");
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

TEST_F(KindsTest, stateOfANetworkWhoseRuntimeFolderIsGone_isReportedAsDied) {
  make(state("network@a"), {"vmmhost.log", "leases"});
  EXPECT_EQ(names(Kind::kVm), "");
  EXPECT_EQ(names(Kind::kNetwork), "a-");
  EXPECT_NE(find(directories, kNetworkA).exitJson.value_or("").find("supervisorDied"), std::string::npos);
  remove(directories, kNetworkA);
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

TEST_F(KindsTest, folderThatIsNoNetworks_isNeitherListedNorRemoved) {
  make(run("network@a"), {"notes", "record", "control"});
  make(state("network@b"), {"photo", ".hidden"});
  make(run("network@c"), {"notes"});
  make(state("network@c"), {"config.json"});
  make(run("network@-d"), {"lock", "record"});
  write(run("network@e"), "precious");
  fs::create_directory_symlink(root / "state", run("network@f"));
  const auto content = [&] {
    std::vector<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      all.push_back(entry.path().string());
    }
    std::sort(all.begin(), all.end());
    return all;
  };
  const auto before = content();
  EXPECT_EQ(names(Kind::kNetwork), "");
  EXPECT_EQ(names(Kind::kVm), "");
  for (const char* text : {"a", "b"}) {
    const EntryName name = networkName(text);
    EXPECT_EQ(errorOf([&] { find(directories, name); }).code(), ErrorCode::kNotFound) << text;
    EXPECT_EQ(errorOf([&] { remove(directories, name); }).code(), ErrorCode::kNotFound) << text;
    EXPECT_EQ(errorOf([&] { connectControl(directories, name); }).code(), ErrorCode::kNotFound) << text;
    EXPECT_EQ(errorOf([&] { openState(directories, name, "photo"); }).code(), ErrorCode::kNotFound) << text;
  }
  for (const char* text : {"a", "b", "c", "e", "f"}) {
    const Error error = errorOf([&] { Reservation::take(directories, networkName(text)); });
    EXPECT_EQ(error.code(), ErrorCode::kConfinement) << text << ": " << error.message();
    EXPECT_NE(error.message().find(std::string("/network@") + text), std::string::npos) << error.message();
  }
  EXPECT_EQ(errorOf([&] { remove(directories, networkName("c")); }).code(), ErrorCode::kConfinement);
  EXPECT_EQ(content(), before);
  EXPECT_EQ(read(run("network@a") / "record"), "precious");
  EXPECT_NO_THROW(Reservation::take(directories, kVmA));
}

// Of a dead network only what is its own goes.
TEST_F(KindsTest, foreignStateBesideADeadNetwork_stays) {
  make(run("network@a"), {"lock"});
  make(state("network@a"), {"photo"});
  EXPECT_EQ(names(Kind::kNetwork), "");
  EXPECT_TRUE(fs::is_empty(root / "run"));
  make(run("network@a"), {"lock"});
  EXPECT_NO_THROW(remove(directories, kNetworkA));
  EXPECT_EQ(std::distance(fs::directory_iterator(stateOf(kNetworkA)), {}), 1);
}

TEST_F(KindsTest, stateThatGoesInPartOnly_isStillTheNetworks) {
  make(state("network@a"), {"vmmhost.log", "leases"});
  fs::path deep = state("network@a");
  for (int level = 0; level < 12; ++level) {  // deeper than anything of ours, and than what is removed
    deep /= "x";
  }
  fs::create_directories(deep);
  EXPECT_EQ(
      errorOf([&] { remove(directories, kNetworkA); }).message().rfind("removing " + stateOf(kNetworkA).string(), 0),
      0u);
  EXPECT_FALSE(fs::exists(stateOf(kNetworkA) / "leases"));
  EXPECT_EQ(names(Kind::kNetwork), "a-");
}

// Takers and listers of a VM and a network of one name, killed at any moment.
TEST_F(KindsTest, storm_neverHasTwoOwnersAndLeavesNothing) {
  write(root / "vm-owner", "");
  write(root / "network-owner", "");
  const auto takeOnce = [&](const EntryName& name) {
    try {
      Reservation reservation = Reservation::take(directories, name);
      {
        // A lock that only one process can have at a time, and that goes when it dies.
        const fs::path owner = root / (name == kVmA ? "vm-owner" : "network-owner");
        const Fd file(::open(owner.c_str(), O_RDWR | O_CLOEXEC));
        if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
          return 1;
        }
        reservation.writeRecord({});
        reservation.writeState("config.json", "{}");
        reservation.writeState("leases", "{}");
      }
      reservation.release(true);
      return 0;
    } catch (const Error& error) {
      return error.code() == ErrorCode::kAlreadyExists ? 0 : 2;
    }
  };
  std::vector<pid_t> children;
  for (unsigned index = 0; index < 6; ++index) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const EntryName& name = index % 2 == 0 ? kVmA : kNetworkA;
      std::mt19937 random(index);
      int faults = 0;
      for (int round = 0; round < 100; ++round) {
        const pid_t one = ::fork();
        if (one == 0) {
          if (index < 4) {
            ::_exit(takeOnce(name));
          }
          for (const Entry& entry : list(directories, name.kind)) {
            try {
              if (!entry.alive) {
                remove(directories, entry.name);
              }
            } catch (const Error&) {
              // Somebody was faster.
            }
          }
          ::_exit(0);
        }
        if (random() % 2 == 0) {
          const timespec moment = {0, static_cast<long>(random() % 1'000'000)};
          ::nanosleep(&moment, nullptr);
          ::kill(one, SIGKILL);
        }
        int status = 0;
        ::waitpid(one, &status, 0);
        faults += WIFEXITED(status) && WEXITSTATUS(status) != 0 ? 1 : 0;
      }
      ::_exit(faults == 0 ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  for (const EntryName& name : {kVmA, kNetworkA}) {
    if (names(name.kind) == "a-") {
      remove(directories, name);
    }
  }
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

}  // namespace
}  // namespace vmmhost::runtime
