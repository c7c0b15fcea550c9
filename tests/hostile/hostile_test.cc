// Runs a VM for each attack and looks at what becomes of it from outside. With VMMHOST_HOSTILE_RESULTS set to a folder,
// each case writes a file there: attack, jail, moment, user, what was seen, separated by tabs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>

#include "tests/hostile/attack.h"
#include "tests/hostile/command.h"
#include "vmmhost/rings.h"

namespace vmmhost::hostile {

// GoogleTest finds these by the namespace of their argument.
void PrintTo(Moment moment, std::ostream* out) {
  *out << momentName(moment);
}
void PrintTo(User user, std::ostream* out) {
  *out << userSuffix(user);
}
void PrintTo(Jail jail, std::ostream* out) {
  *out << jailName(jail);
}
void PrintTo(const Group& group, std::ostream* out) {
  *out << group.name;
}

namespace {

struct Case {
  Group group;
  Jail jail;
  Moment moment;
  User user;
};

const char* userName(User user) {
  return user == User::kOrdinary || ::geteuid() != 0 ? "user" : "root";
}

std::string caseName(const Case& one) {
  return std::string(one.group.name) + "_" + jailName(one.jail) + "_" + momentName(one.moment) + "_" +
         userSuffix(one.user);
}

void PrintTo(const Case& one, std::ostream* out) {
  *out << caseName(one);
}

// Every combination that has attacks.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Group& group : groups()) {
    for (const Jail jail : {Jail::kStatic, Jail::kSystem}) {
      for (const Moment moment : {Moment::kConstructor, Moment::kConfirm, Moment::kStart, Moment::kThread}) {
        const auto fits = [&](const Attack& attack) { return isTime(attack, moment); };
        if (std::none_of(group.attacks.begin(), group.attacks.end(), fits)) {
          continue;
        }
        all.push_back({group, jail, moment, User::kCaller});
        all.push_back({group, jail, moment, User::kOrdinary});
        // Nothing but quotas could be what control groups make good.
        if (group.name == std::string_view("quotas")) {
          all.push_back({group, jail, moment, User::kWithoutGroups});
        }
      }
    }
    const auto isAtStart = [](const Attack& attack) { return isTime(attack, Moment::kStart); };
    if (std::any_of(group.attacks.begin(), group.attacks.end(), isAtStart)) {
      all.push_back({group, Jail::kGrants, Moment::kStart, User::kCaller});
    }
  }
  return all;
}

std::string fateText(const Attack& attack, const Outcome& outcome) {
  const std::string told = "attack " + std::string(attack.name) + ": ";
  switch (outcome.fate) {
    case Fate::kKilled:
      return "ended by SIGSYS";
    case Fate::kErrno:
      return told + "errno " + std::to_string(outcome.errnoValue) + "\"";
    case Fate::kRefused:
      return "the worker is not confined as its backend declared";
    case Fate::kEnded:
      return "the worker exited with code";
    case Fate::kBroken:
      return "the worker sent ";
    case Fate::kOutOfMemory:
      return "out of memory";
    default:
      return told + "succeeded\"";
  }
}

bool endsTheVm(Fate fate) {
  return fate != Fate::kErrno && fate != Fate::kHarmless;
}

class Record {
 public:
  explicit Record(const Case& one) : one_(one) {
    const char* folder = std::getenv("VMMHOST_HOSTILE_RESULTS");
    if (folder != nullptr && one.jail != Jail::kGrants) {  // of which the page says that it is as static
      file_.open(std::string(folder) + "/" + caseName(one) + ".tsv", std::ios::trunc);
    }
  }
  void add(const Attack& attack, const std::string& seen) {
    file_ << attack.name << '\t' << jailName(one_.jail) << '\t' << momentName(one_.moment) << '\t'
          << userName(one_.user) << '\t' << seen << '\n';
  }

 private:
  const Case& one_;
  std::ofstream file_;
};

// As the table of docs/security.md shows it.
std::string seenText(const Outcome& outcome) {
  switch (outcome.fate) {
    case Fate::kKilled:
      return "SIGSYS";
    case Fate::kErrno:
      return ::strerrorname_np(outcome.errnoValue);
    case Fate::kRefused:
      return "refused by the host";
    case Fate::kEnded:
      return "ends its own VM";
    case Fate::kBroken:
      return "ended by the host";
    case Fate::kOutOfMemory:
      return "ended by its control group, where it has one";
    default:
      return "allowed, harmless";
  }
}

class Attacks : public ::testing::TestWithParam<Case> {};

TEST_P(Attacks, endAsPlanned_andHarmNothing) {
  const Case& one = GetParam();
  if (const std::string why = whyNot(one.user); !why.empty()) {
    GTEST_SKIP() << why;
  }
  if (one.group.name == std::string("rings") && !rings::make().descriptor) {
    GTEST_SKIP() << "this system offers no io_uring: no worker has rings";
  }
  Record record(one);
  const Neighbour neighbour(one.user, "neighbour", Jail::kStatic);
  ASSERT_TRUE(neighbour.answers());
  for (const Attack& attack : one.group.attacks) {
    if (!isTime(attack, one.moment)) {
      continue;
    }
    Outcome expected = attack.in(one.jail);
    if (expected.fate == Fate::kOutOfMemory && !hasControlGroups(one.user)) {
      expected = kHarmless;  // said plainly in docs/security.md: nothing else bounds it
    }
    Surroundings surroundings(one.user);
    const Result result = surroundings.run(attack, one.moment, one.jail,
                                           [&] { EXPECT_TRUE(neighbour.answers()) << "while " << attack.name; });
    const std::string wanted = fateText(attack, expected);
    const bool isAsPlanned = result.output.find(wanted) != std::string::npos;
    const bool hasRightCode = endsTheVm(expected.fate) == (result.exitCode != 0);
    const std::string damage = surroundings.damage();
    EXPECT_TRUE(isAsPlanned) << attack.name << ": expected \"" << wanted << "\", got\n" << result.output;
    EXPECT_TRUE(hasRightCode) << attack.name << ": exit code " << result.exitCode;
    EXPECT_EQ(damage, "") << attack.name;
    record.add(attack, isAsPlanned && damage.empty() ? seenText(attack.in(one.jail)) : "NOT AS PLANNED " + damage);
  }
  EXPECT_EQ(neighbour.stop(), "");
}

INSTANTIATE_TEST_SUITE_P(Hostile, Attacks, ::testing::ValuesIn(cases()),
                         [](const ::testing::TestParamInfo<Case>& info) { return caseName(info.param); });

// The surroundings of a worker that it takes long to go through.
class Large : public Surroundings {
 public:
  explicit Large(Jail jail) : Surroundings(User::kCaller) {
    std::filesystem::resize_file(disk(), std::uintmax_t{4} << 20);
    configure("many-mappings", momentName(Moment::kStart), jail, {});
  }
  ~Large() { command({"rm", "--force", "large"}); }

  Result start() const {
    return command({"run", "--backend", "hostile", "--detach", "--json", "--name", "large", "-f", "vm.json"});
  }
};

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The first number of this name; empty: there is none.
std::string numberOf(const std::string& json, const std::string& name) {
  std::smatch match;
  return std::regex_search(json, match, std::regex('"' + name + "\": *\"?([0-9]+)")) ? match[1].str() : "";
}

bool isMeasured(const std::string& json) {
  const std::string bytes = numberOf(json, "workerPrivateBytes");
  return !bytes.empty() && bytes != "0";
}

// Whether a process goes through the mappings of another one just now.
bool isMeasuring(const std::string& process) {
  namespace fs = std::filesystem;
  std::error_code error;
  for (fs::directory_iterator entry("/proc/" + process + "/fd", error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code isClosed;
    if (fs::read_symlink(entry->path(), isClosed).filename() == "smaps") {
      return true;
    }
  }
  return false;
}

TEST(LargeWorker, isLookedAtAndListed_inTime) {
  for (const Jail jail : {Jail::kStatic, Jail::kSystem}) {
    const Large surroundings(jail);
    const Result started = surroundings.start();
    ASSERT_EQ(started.exitCode, 0) << started.output;
    const Clock::time_point begin = Clock::now();
    EXPECT_EQ(surroundings.command({"inspect", "large"}).exitCode, 0);
    const double inspecting = secondsSince(begin);
    EXPECT_LT(inspecting, 20);
    const Result listed = surroundings.command({"ps"});
    EXPECT_NE(listed.output.find("running"), std::string::npos) << listed.output;
    std::printf("a large worker (%s): inspect %.3f s\n", jailName(jail), inspecting);
  }
}

// Whoever stops it does not wait until it was gone through. Under worker-static a limit of addresses keeps it from
// becoming that large.
TEST(LargeWorker, isStoppedBeforeItIsMeasured) {
  const Jail jail = Jail::kSystem;
  const Large surroundings(jail);
  bool isAhead = false;
  // On a machine with much to do `stop` may come when the measurement is done, and tells nothing then.
  for (int attempt = 0; attempt < 5 && !isAhead; ++attempt) {
    const Result started = surroundings.start();
    ASSERT_EQ(started.exitCode, 0) << started.output;
    const std::string supervisor = numberOf(started.output, "supervisorPid");
    ASSERT_NE(supervisor, "") << started.output;
    auto looking = std::async(std::launch::async, [&] { return surroundings.command({"inspect", "large"}); });
    while (!isMeasuring(supervisor) && looking.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
    }
    const Clock::time_point begin = Clock::now();
    const Result stopped = surroundings.command({"stop", "large"});
    const double stopping = secondsSince(begin);
    EXPECT_EQ(stopped.exitCode, 0) << stopped.output;
    EXPECT_LT(stopping, 20);
    isAhead = !isMeasured(looking.get().output);  // there was nothing left to measure, or it had ended
    std::printf("a large worker (%s): stop %.3f s, %s\n", jailName(jail), stopping,
                isAhead ? "and not measured" : "measured before");
    surroundings.command({"rm", "large"});
  }
  EXPECT_TRUE(isAhead) << jailName(jail) << ": it was gone through first, each time";
}

TEST(LargeWorker, whoseGuestPowersOff_endsAtOnce_andIsNotMeasured) {
  const Jail jail = Jail::kSystem;
  const Large surroundings(jail);
  const Result started = surroundings.start();
  ASSERT_EQ(started.exitCode, 0) << started.output;
  const Clock::time_point begin = Clock::now();
  const Result pressed = surroundings.command({"shutdown", "large"});
  ASSERT_EQ(pressed.exitCode, 0) << pressed.output;
  const Result ended = surroundings.command({"wait", "large", "--json"});
  const double ending = secondsSince(begin);
  EXPECT_EQ(ended.exitCode, 0) << ended.output;
  EXPECT_NE(ended.output.find("\"kind\": \"guest\""), std::string::npos) << ended.output;
  EXPECT_FALSE(isMeasured(ended.output)) << ended.output;
  EXPECT_LT(ending, 20);
  std::printf("a large worker (%s): its own end %.3f s\n", jailName(jail), ending);
}

// What execveat lets it start once more is said in docs/plugins.md: itself and its libraries, nothing else.
TEST(DynamicJail, startsNoPrograms) {
  for (const auto& [name, wanted] : {std::pair("exec-absolute", "errno 2\""),
                                     {"exec-pinned", "errno 2\""},
                                     {"exec-library", "errno 13\""},
                                     {"exec-memory", "errno 22\""},
                                     {"exec-self", "the worker exited with code 42"},
                                     // The loader's own, for a file that is not there.
                                     {"exec-loader", "the worker exited with code 127"}}) {
    Surroundings surroundings(User::kCaller);
    const Attack* attack = findAttack(name);
    ASSERT_NE(attack, nullptr) << name;
    for (const Moment moment : {Moment::kConstructor, Moment::kStart}) {
      const Result result = surroundings.run(*attack, moment, Jail::kDynamic);
      EXPECT_NE(result.output.find(wanted), std::string::npos) << name << ": " << result.output;
      EXPECT_EQ(surroundings.damage(), "") << name;
    }
  }
}

TEST(AttackList, names_areUniqueAndFound) {
  std::set<std::string> names;
  for (const Attack& attack : allAttacks()) {
    EXPECT_TRUE(names.insert(attack.name).second) << attack.name;
    EXPECT_EQ(findAttack(attack.name)->run, attack.run);
  }
  EXPECT_GE(names.size(), 60u);
  EXPECT_EQ(findAttack("nothing"), nullptr);
}

TEST(Traps, ofRoot_layInEveryFolderThatCouldMatter) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can write all of these folders";
  }
  const Surroundings surroundings(User::kCaller);
  for (const char* folder : {"/usr", "/run", "/var", "/tmp", "/home", "/etc"}) {
    EXPECT_TRUE(surroundings.traps().coversFolder(folder)) << folder;
  }
}

// The positive side of "harm nothing": each kind of harm is seen, and named.
TEST(Traps, thatWereReachedOrChanged_areNamed) {
  const std::string token = "self" + std::to_string(::getpid());
  const Traps traps(token);
  ASSERT_EQ(traps.damage(), "");
  char path[108];
  for (const auto& [trap, type] : {std::pair(Trap::kStream, SOCK_STREAM), std::pair(Trap::kDatagram, SOCK_DGRAM)}) {
    for (const char* folder : {"/tmp", ""}) {
      trapPath(path, folder, token.c_str(), trap);
      const std::string name = *folder == '\0' ? "@" + std::string(path + 1) : path;
      EXPECT_EQ(traps.damage().find("the listener " + name), std::string::npos);
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::memcpy(address.sun_path, path, sizeof path);
      const std::size_t bytes = std::strlen(path) + (*folder == '\0' ? 0 : 1);
      if (*folder == '\0') {
        address.sun_path[0] = '\0';
      }
      const Fd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
      ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address),
                          static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + bytes)),
                0)
          << path;
      if (type == SOCK_DGRAM) {
        ASSERT_EQ(::send(socket.get(), "x", 1, 0), 1);
      }
      EXPECT_NE(traps.damage().find("the listener " + name + " was reached"), std::string::npos) << traps.damage();
    }
  }
  trapPath(path, "/tmp", token.c_str(), Trap::kSecret);
  EXPECT_EQ(traps.damage().find("secret"), std::string::npos);
  std::ofstream(path, std::ios::app) << "more";
  EXPECT_NE(traps.damage().find(std::string(path) + " has changed"), std::string::npos) << traps.damage();
  trapPath(path, "/tmp", token.c_str(), Trap::kStream);
  ASSERT_EQ(::unlink(path), 0);
  EXPECT_NE(traps.damage().find(std::string(path) + " is gone"), std::string::npos) << traps.damage();
}

// The surroundings of one VM that lives, as those of an attack that left something behind.
class Watched : public Surroundings {
 public:
  Watched() : Surroundings(User::kCaller) { configure("neighbour", momentName(Moment::kStart), Jail::kStatic, {}); }
};

TEST(Damage, ofEachKind_isNamed) {
  Watched surroundings;
  ASSERT_EQ(surroundings.damage(), "");
  const Result started =
      surroundings.command({"run", "--backend", "hostile", "--detach", "--rm", "--name", "left", "-f", "vm.json"});
  ASSERT_EQ(started.exitCode, 0) << started.output;
  const std::string living = surroundings.damage();
  for (const char* part : {"process ", "the disk is locked", "control is left", "record is left"}) {
    EXPECT_NE(living.find(part), std::string::npos) << part << " in: " << living;
  }
  EXPECT_EQ(surroundings.command({"rm", "--force", "left"}).exitCode, 0);
  ASSERT_EQ(surroundings.damage(), "");
  const std::string disk = surroundings.disk();
  const Fd file(::open(disk.c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock {};
  lock.l_type = F_RDLCK;
  ASSERT_EQ(::fcntl(file.get(), F_OFD_SETLK, &lock), 0);
  EXPECT_EQ(surroundings.damage(), "the disk has a lock; ");
  lock.l_type = F_UNLCK;
  ASSERT_EQ(::fcntl(file.get(), F_OFD_SETLK, &lock), 0);
  ASSERT_EQ(::chmod(disk.c_str(), 0644), 0);
  EXPECT_EQ(surroundings.damage(), "the disk's mode has changed; ");
  ASSERT_EQ(::chmod(disk.c_str(), 0600), 0);
  ASSERT_EQ(::pwrite(file.get(), "x", 1, 0), 1);
  EXPECT_EQ(surroundings.damage(), "the disk's time has changed; ");
  ASSERT_EQ(::ftruncate(file.get(), 1), 0);
  EXPECT_EQ(surroundings.damage(), "the disk's size has changed; the disk's time has changed; ");
  ASSERT_EQ(::unlink(disk.c_str()), 0);
  EXPECT_EQ(surroundings.damage(), "the disk cannot be opened: No such file or directory");
}

TEST(ForgedPlans, areRefusedBeforeAnythingStarts) {
  for (const char* part : {"bind-run",
                           "bind-upwards",
                           "bind-over-proc",
                           "device-elsewhere",
                           "device-upwards",
                           "limit-descriptors",
                           "limit-locked-memory",
                           "policy-none",
                           "policy-path",
                           "policy-and-grants",
                           "grants-unknown",
                           "grants-that-open-nothing",
                           "grants-for-nothing",
                           "static-among-programs",
                           "root-host",
                           "flags-unknown",
                           "worker-elsewhere",
                           "worker-upwards",
                           "processes",
                           "memory",
                           "rings",
                           "epolls",
                           "descriptors",
                           "rings-beside-programs"}) {
    Surroundings surroundings(User::kCaller);
    const Result result = surroundings.runForged(part);
    EXPECT_NE(result.exitCode, 0) << part;
    const bool isNamed = result.output.find("its launch plan ") != std::string::npos ||
                         result.output.find("worker /etc/passwd is not executable") != std::string::npos;
    EXPECT_TRUE(isNamed) << part << ": " << result.output;
    EXPECT_EQ(surroundings.damage(), "") << part;
  }
}

}  // namespace
}  // namespace vmmhost::hostile
