#include <capnp/message.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <random>
#include <vector>

#include "host/config/json.h"
#include "host/runtime/testing.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::runtime {
namespace {

using namespace testing;

class ReservationTest : public RuntimeTest {
 protected:
  // A supervisor that took `name`, wrote a record and some state, and lives until it is killed.
  std::unique_ptr<Process> supervisor(const std::string& name, Record record = {}, bool withState = true) {
    return std::make_unique<Process>([this, name, record, withState] {
      Reservation reservation = Reservation::take(directories, vmName(name));
      reservation.writeRecord(record);
      if (withState) {
        reservation.writeState("config.json", "{}");
      }
      return reservation;
    });
  }
};

TEST_F(ReservationTest, takenName_livesUntilItIsReleased) {
  Reservation reservation = Reservation::take(directories, vmName("vm"));
  EXPECT_EQ(reservation.name().text, "vm");
  EXPECT_TRUE(find(directories, vmName("vm")).alive);
  const Error error = errorOf([&] { Reservation::take(directories, vmName("vm")); });
  EXPECT_EQ(error.code(), ErrorCode::kAlreadyExists);
  EXPECT_TRUE(find(directories, vmName("vm")).alive);
  reservation.release(true);
  reservation.release(true);
  EXPECT_FALSE(fs::exists(run("vm")));
  EXPECT_FALSE(fs::exists(state("vm")));
  EXPECT_NO_THROW(Reservation::take(directories, vmName("vm")));
}

TEST_F(ReservationTest, hostileNames_areRefusedEverywhereAndLeaveNothing) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"), std::string("-rf"),
        std::string(".uids"), std::string("a\nb"), std::string("a\0b", 3), std::string(65, 'x'), std::string("\xff")}) {
    EXPECT_EQ(errorOf([&] { Reservation::take(directories, vmName(name)); }).code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(errorOf([&] { find(directories, vmName(name)); }).code(), ErrorCode::kNotFound);
    EXPECT_EQ(errorOf([&] { remove(directories, vmName(name)); }).code(), ErrorCode::kNotFound);
    EXPECT_EQ(errorOf([&] { connectControl(directories, vmName(name)); }).code(), ErrorCode::kNotFound);
    EXPECT_EQ(errorOf([&] { openState(directories, vmName(name), "exit.json"); }).code(), ErrorCode::kNotFound);
  }
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
  EXPECT_NO_THROW(Reservation::take(directories, vmName(std::string(64, 'x'))));
}

TEST_F(ReservationTest, keptState_holdsTheNameUntilItIsRemoved) {
  {
    Reservation reservation = Reservation::take(directories, vmName("vm"));
    reservation.writeState("exit.json", "{\"exitCode\": 1}");
    reservation.writeState("exit.json", "{}");
  }
  EXPECT_FALSE(fs::exists(run("vm")));
  const Error error = errorOf([&] { Reservation::take(directories, vmName("vm")); });
  EXPECT_EQ(error.code(), ErrorCode::kAlreadyExists);
  EXPECT_EQ(error.hint(), "vmmhost rm vm");
  EXPECT_FALSE(fs::exists(run("vm")));
  const Entry entry = find(directories, vmName("vm"));
  EXPECT_FALSE(entry.alive);
  EXPECT_EQ(entry.exitJson, "{}");
  remove(directories, vmName("vm"));
  EXPECT_FALSE(fs::exists(state("vm")));
  EXPECT_NO_THROW(Reservation::take(directories, vmName("vm")));
}

TEST_F(ReservationTest, reservationWithoutState_leavesNothing) {
  { const Reservation reservation = Reservation::take(directories, vmName("vm")); }
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

TEST_F(ReservationTest, moves_keepTheName) {
  Reservation first = Reservation::take(directories, vmName("first"));
  Reservation second = Reservation::take(directories, vmName("second"));
  first = std::move(second);
  EXPECT_EQ(errorOf([&] { find(directories, vmName("first")); }).code(), ErrorCode::kNotFound);
  EXPECT_TRUE(find(directories, vmName("second")).alive);
}

TEST_F(ReservationTest, deadSupervisor_isFoundReapedAndReported) {
  Record record;
  record.supervisorPid = 4711;
  auto process = supervisor("vm", record);
  ASSERT_EQ(process->answer(), 'x');
  EXPECT_TRUE(find(directories, vmName("vm")).alive);
  EXPECT_EQ(errorOf([&] { remove(directories, vmName("vm")); }).code(), ErrorCode::kFailedPrecondition);
  process->end(SIGKILL);
  const std::vector<Entry> entries = list(directories, Kind::kVm);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_FALSE(entries[0].alive);
  EXPECT_FALSE(fs::exists(run("vm")));
  ASSERT_TRUE(entries[0].exitJson);
  capnp::MallocMessageBuilder message;
  auto outcome = message.initRoot<schema::Outcome>();
  config::parseJson("exit.json", *entries[0].exitJson, outcome);
  EXPECT_EQ(outcome.getKind(), schema::EndKind::SUPERVISOR_DIED);
  EXPECT_EQ(outcome.getExitCode(), 125);
  EXPECT_NE(std::string(outcome.getDetail().cStr()).find("4711"), std::string::npos);
  EXPECT_EQ(read(state("vm") / "config.json"), "{}");
}

TEST_F(ReservationTest, stoppedSupervisor_isAliveAndBlocksNobody) {
  auto process = supervisor("vm");
  ::kill(process->pid(), SIGSTOP);
  EXPECT_TRUE(list(directories, Kind::kVm).at(0).alive);
  EXPECT_EQ(errorOf([&] { Reservation::take(directories, vmName("vm")); }).code(), ErrorCode::kAlreadyExists);
  EXPECT_EQ(errorOf([&] { connectControl(directories, vmName("vm")); }).code(), ErrorCode::kUnavailable);
}

TEST_F(ReservationTest, deadSupervisorWithRemoveOnEnd_leavesNothing) {
  Record record;
  record.removeOnEnd = true;
  supervisor("vm", record)->end(SIGKILL);
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
  EXPECT_FALSE(fs::exists(run("vm")));
  EXPECT_FALSE(fs::exists(state("vm")));
}

TEST_F(ReservationTest, deadSupervisor_givesItsNameToTheNext) {
  supervisor("vm", {}, false)->end(SIGKILL);
  EXPECT_TRUE(fs::exists(run("vm")));
  EXPECT_NO_THROW(Reservation::take(directories, vmName("vm")));
}

TEST_F(ReservationTest, outcomeThatADeadSupervisorWrote_isKept) {
  auto process = std::make_unique<Process>([&] {
    Reservation reservation = Reservation::take(directories, vmName("vm"));
    reservation.writeState("exit.json", "{\"exitCode\": 3}");
    return reservation;
  });
  process->end(SIGKILL);
  EXPECT_EQ(find(directories, vmName("vm")).exitJson, "{\"exitCode\": 3}");
}

// What is left when a process dies between two steps of taking, releasing or reaping.
TEST_F(ReservationTest, halfMadeEntries_areCleanedUp) {
  fs::create_directory(run("folder"));
  fs::create_directory(run("locked"));
  write(run("locked") / "lock", "");
  fs::create_directory(run("both"));
  fs::create_directory(state("both"));
  fs::create_directory(state("empty"));
  fs::create_directory(state("torn"));
  write(state("torn") / ".exit.json.new", "{\"exi");
  fs::create_directory(run("damaged"));
  write(run("damaged") / "record", "cgroup=/sys/fs/cgroup/vmm");
  write(run("damaged") / "control", "");
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    ::chmod(entry.path().c_str(), 0700);
  }
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

TEST_F(ReservationTest, stateWhoseRuntimeFolderIsGone_isReportedAsDied) {
  // As after the machine was started again.
  fs::create_directory(state("vm"));
  ::chmod(state("vm").c_str(), 0700);
  write(state("vm") / "console.log", "hello");
  EXPECT_NE(find(directories, vmName("vm")).exitJson.value_or("").find("supervisorDied"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(root / "run"));
  const Fd log = openState(directories, vmName("vm"), "console.log");
  char bytes[5];
  EXPECT_EQ(::read(log.get(), bytes, 5), 5);
}

TEST_F(ReservationTest, manyAtOnce_exactlyOneWins) {
  for (int round = 0; round < 20; ++round) {
    // Left by a dead one, so that they also race to reap.
    supervisor("vm", {}, false)->end(SIGKILL);
    int gate[2];
    int answers[2];
    ASSERT_EQ(::pipe2(gate, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(answers, O_CLOEXEC), 0);
    constexpr int kProcesses = 8;
    std::vector<pid_t> children;
    for (int index = 0; index < kProcesses; ++index) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::close(gate[1]);
        char byte = 0;
        (void)!::read(gate[0], &byte, 1);
        if (index % 2 == 1) {
          list(directories, Kind::kVm);
        }
        try {
          const Reservation reservation = Reservation::take(directories, vmName("vm"));
          (void)!::write(answers[1], "w", 1);
          while (true) {
            ::pause();
          }
        } catch (const Error& error) {
          (void)!::write(answers[1], error.code() == ErrorCode::kAlreadyExists ? "l" : "?", 1);
        }
        ::_exit(0);
      }
      children.push_back(pid);
    }
    ::close(gate[0]);
    ::close(gate[1]);
    std::string all;
    while (all.size() < kProcesses) {
      char byte = 0;
      ASSERT_EQ(::read(answers[0], &byte, 1), 1);
      all += byte;
    }
    ::close(answers[0]);
    ::close(answers[1]);
    EXPECT_EQ(std::count(all.begin(), all.end(), 'w'), 1) << all;
    EXPECT_EQ(std::count(all.begin(), all.end(), 'l'), kProcesses - 1) << all;
    EXPECT_TRUE(find(directories, vmName("vm")).alive);
    for (const pid_t pid : children) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
}

// Takers and listers of one name, killed at any moment: whoever has the name must be the only one.
TEST_F(ReservationTest, storm_neverHasTwoOwnersAndLeavesNothing) {
  const fs::path owner = root / "owner";
  write(owner, "");
  const auto takeOnce = [&] {
    try {
      Reservation reservation = Reservation::take(directories, vmName("vm"));
      {
        // A lock that only one process can have at a time, and that goes when it dies.
        const Fd file(::open(owner.c_str(), O_RDWR | O_CLOEXEC));
        if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
          return 1;
        }
        for (int turn = 0; turn < 5; ++turn) {
          ::sched_yield();
        }
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
      std::mt19937 random(index);
      int faults = 0;
      for (int round = 0; round < 300; ++round) {
        const pid_t one = ::fork();
        if (one == 0) {
          ::_exit(index < 4 ? takeOnce() : (list(directories, Kind::kVm), 0));
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
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
  EXPECT_TRUE(fs::is_empty(root / "run"));
  EXPECT_TRUE(fs::is_empty(root / "state"));
}

TEST_F(ReservationTest, linksWhereEntriesBelong_areRefusedAndNotFollowed) {
  const fs::path victim = root / "victim";
  fs::create_directory(victim);
  ::chmod(victim.c_str(), 0700);
  write(victim / "lock", "precious");
  fs::create_directory_symlink(victim, run("vm"));
  EXPECT_EQ(errorOf([&] { Reservation::take(directories, vmName("vm")); }).code(), ErrorCode::kConfinement);
  EXPECT_EQ(errorOf([&] { find(directories, vmName("vm")); }).code(), ErrorCode::kConfinement);
  EXPECT_TRUE(list(directories, Kind::kVm).empty());
  fs::remove(run("vm"));
  // A link inside an entry is removed, not what it leads to; a file of state is not read through one.
  fs::create_directory_symlink(victim, state("vm"));
  EXPECT_EQ(errorOf([&] { remove(directories, vmName("vm")); }).code(), ErrorCode::kConfinement);
  fs::remove(state("vm"));
  fs::create_directory(state("vm"));
  ::chmod(state("vm").c_str(), 0700);
  fs::create_directory_symlink(victim, state("vm") / "inner");
  fs::create_symlink(victim / "lock", state("vm") / "console.log");
  write(state("vm") / "exit.json", "{}");
  EXPECT_EQ(errorOf([&] { openState(directories, vmName("vm"), "console.log"); }).code(), ErrorCode::kNotFound);
  EXPECT_EQ(errorOf([&] { openState(directories, vmName("vm"), "../../victim/lock"); }).code(), ErrorCode::kNotFound);
  remove(directories, vmName("vm"));
  EXPECT_FALSE(fs::exists(state("vm")));
  EXPECT_EQ(read(victim / "lock"), "precious");
}

TEST_F(ReservationTest, missingNames_haveAHint) {
  const Reservation one = Reservation::take(directories, vmName("debian"));
  EXPECT_EQ(errorOf([&] { find(directories, vmName("debain")); }).hint(), "there is debian");
  EXPECT_EQ(errorOf([&] { find(directories, vmName("other")); }).hint(), "vmmhost ps -a lists all");
  EXPECT_EQ(errorOf([&] { find(directories, vmName("x\x1b[2J")); }).message(), "there is no VM called \"x\\x1b[2J\"");
}

class ControlTest : public ReservationTest {};

TEST_F(ControlTest, control_worksBelowAPathLongerThanAnAddress) {
  const fs::path deep = root / std::string(100, 'a') / std::string(100, 'b');
  const Directories far = Directories::open({(deep / "run").string(), (deep / "state").string()});
  Reservation reservation = Reservation::take(far, vmName(std::string(64, 'n')));
  const Fd listener = reservation.listenControl();
  struct stat status = {};
  ASSERT_EQ(::stat((deep / "run" / std::string(64, 'n') / "control").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  const Fd client = connectControl(far, vmName(std::string(64, 'n')));
  const Fd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(server);
  EXPECT_EQ(::write(client.get(), "hi", 2), 2);
  char bytes[2];
  EXPECT_EQ(::read(server.get(), bytes, 2), 2);
}

TEST_F(ControlTest, connecting_tellsStartingFullAndEndedApart) {
  auto reservation = std::make_unique<Reservation>(Reservation::take(directories, vmName("vm")));
  const Error starting = errorOf([&] { connectControl(directories, vmName("vm")); });
  EXPECT_EQ(starting.code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(starting.retryable());
  {
    const Fd listener = reservation->listenControl();
    std::vector<Fd> clients;
    const Error full = errorOf([&] {
      for (int count = 0; count < 1000; ++count) {
        clients.push_back(connectControl(directories, vmName("vm")));
      }
    });
    EXPECT_EQ(full.code(), ErrorCode::kUnavailable);
    EXPECT_NE(full.message().find("too many"), std::string::npos) << full.message();
  }
  EXPECT_EQ(errorOf([&] { connectControl(directories, vmName("vm")); }).code(), ErrorCode::kUnavailable);
  reservation->writeState("exit.json", "{}");
  reservation->release(false);
  EXPECT_EQ(errorOf([&] { connectControl(directories, vmName("vm")); }).code(), ErrorCode::kFailedPrecondition);
  remove(directories, vmName("vm"));
  EXPECT_EQ(errorOf([&] { connectControl(directories, vmName("vm")); }).code(), ErrorCode::kNotFound);
}

TEST_F(ControlTest, controlThatIsALink_isNotFollowed) {
  Reservation other = Reservation::take(directories, vmName("other"));
  const Fd listener = other.listenControl();
  const Reservation reservation = Reservation::take(directories, vmName("vm"));
  fs::create_symlink(run("other") / "control", run("vm") / "control");
  EXPECT_EQ(errorOf([&] { connectControl(directories, vmName("vm")); }).code(), ErrorCode::kConfinement);
}

}  // namespace
}  // namespace vmmhost::runtime
