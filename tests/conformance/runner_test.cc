// The runner's own logic: which cases are run, how they end, and what is told of them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <utility>

#include "host/plugin/abilities.h"
#include "host/runtime/sockets.h"
#include "tests/conformance/case_process.h"
#include "tests/conformance/json_text.h"
#include "tests/conformance/leaks.h"
#include "tests/conformance/options.h"
#include "tests/conformance/refusals.h"
#include "tests/conformance/result.h"
#include "vmmhost/error.h"
#include "vmmhost/fd.h"

namespace vmmhost::conformance {
namespace {

using Kind = Result::Kind;

const Subject kSubject = {"one", "/plugins/vmmhost-backend-one.so", "1.2", "An example", "none", "here", {"pause"}, 0};

Case needing(std::vector<std::string> needs) {
  return {"area.case", std::move(needs), nullptr};
}

TEST(Cases, names_areUniqueAndHaveAnArea) {
  std::set<std::string> names;
  for (const Case& one : allCases()) {
    EXPECT_TRUE(names.insert(one.name).second) << one.name << " is there twice";
    EXPECT_NE(areaOf(one.name), one.name);
    EXPECT_TRUE(one.run) << one.name;
  }
  EXPECT_GE(names.size(), 80u);
}

TEST(Abilities, eachIsNeededByACase_andItsRefusalCanBeObserved) {
  std::set<std::string> needed;
  for (const Case& one : allCases()) {
    needed.insert(one.needs.begin(), one.needs.end());
  }
  EXPECT_EQ(needed.erase(std::string(kNeedsLinux)), 1u);
  std::set<std::string> named;
  for (const plugin::Ability& ability : plugin::kAbilities) {
    EXPECT_TRUE(named.insert(ability.name).second) << ability.name << " is there twice";
    EXPECT_TRUE(knowsRefusalOf(ability.name)) << ability.name;
  }
  EXPECT_EQ(needed, named);
}

TEST(Subject, place_isAWordForHowGuestsRun) {
  Subject subject = kSubject;
  const std::pair<const char*, const char*> places[] = {
      {"none", "translating"}, {"emulated", "emulating"}, {"hardware", "hardware"}};
  for (const auto& [acceleration, place] : places) {
    subject.acceleration = acceleration;
    EXPECT_EQ(subject.place(), place);
  }
}

TEST(Gate, capabilityThatIsAdvertised_isRun) {
  EXPECT_EQ(decide(needing({}), kSubject, {}).kind, Gate::Kind::kRun);
  EXPECT_EQ(decide(needing({"pause"}), kSubject, {}).kind, Gate::Kind::kRun);
}

TEST(Gate, capabilityThatIsNotAdvertised_isToBeRefused) {
  const Gate gate = decide(needing({"pause", "reset"}), kSubject, {});
  EXPECT_EQ(gate.kind, Gate::Kind::kRefusal);
  EXPECT_EQ(gate.capability, "reset");
}

TEST(Gate, linuxWithoutAKernel_isNotRunAndSaysWhy) {
  const Gate gate = decide(needing({"pause", std::string(kNeedsLinux)}), kSubject, {"guests", "", ""});
  EXPECT_EQ(gate.kind, Gate::Kind::kAbsent);
  EXPECT_NE(gate.reason.find("--kernel"), std::string::npos);
}

TEST(Gate, refusal_isObservedWithoutAKernelToo) {
  EXPECT_EQ(decide(needing({std::string(kNeedsLinux), "reset"}), kSubject, {}).kind, Gate::Kind::kRefusal);
}

TEST(Gate, linuxOnASlowMachine_isNotRunAndSaysWhy) {
  const Kit kit = {"guests", "vmlinux", "initrd"};
  const Case one = needing({std::string(kNeedsLinux)});
  Subject subject = kSubject;
  EXPECT_EQ(decide(one, subject, kit).kind, Gate::Kind::kRun);
  subject.acceleration = "emulated";
  EXPECT_EQ(decide(one, subject, kit).kind, Gate::Kind::kAbsent);
  subject.instructionsPerSecond = kMinLinuxRate;  // what was measured counts more than what it is called
  EXPECT_EQ(decide(one, subject, kit).kind, Gate::Kind::kRun);
  subject.instructionsPerSecond = kMinLinuxRate - 1;
  EXPECT_EQ(decide(one, subject, kit).kind, Gate::Kind::kAbsent);
}

TEST(Pattern, areaOrShellPattern_selects) {
  EXPECT_TRUE(isSelected("pause.stops", {}));
  EXPECT_TRUE(isSelected("pause.stops", {"pause"}));
  EXPECT_TRUE(isSelected("pause.stops", {"*.st?ps"}));
  EXPECT_TRUE(isSelected("pause.stops", {"reset", "pause.stops"}));
  EXPECT_FALSE(isSelected("pause.stops", {"paus"}));
  EXPECT_FALSE(isSelected("pause.stops", {"stops"}));
  EXPECT_TRUE(isSelected("fields.consoles[1]", {"fields.*"}));
}

TEST(Json, results_areToldWhole) {
  std::vector<Result> results(4);
  results[0] = {"a.passed", Kind::kPassed, "", "served", {"pause"}, 12};
  results[1] = {"a.failed", Kind::kFailed, "a \"quoted\"\nreason", "", {}, 3};
  results[2] = {"b.refused", Kind::kNotAdvertised, "reset: unsupported", "", {"reset"}, 4};
  results[3] = {"b.absent", Kind::kAbsent, "no kernel", "", {}, 0};
  const auto json = nlohmann::json::parse(resultsJson(kSubject, results));
  EXPECT_EQ(json["backend"]["name"], "one");
  EXPECT_EQ(json["backend"]["version"], "1.2");
  EXPECT_EQ(json["backend"]["capabilities"], nlohmann::json({"pause"}));
  EXPECT_EQ(json["backend"]["place"], "translating");
  EXPECT_EQ(json["conforms"], false);
  EXPECT_EQ(json["counts"], nlohmann::json({{"passed", 1}, {"failed", 1}, {"notAdvertised", 1}, {"needsAbsent", 1}}));
  EXPECT_EQ(json["cases"][0]["observed"], "served");
  EXPECT_EQ(json["cases"][0]["milliseconds"], 12);
  EXPECT_EQ(json["cases"][1]["result"], "failed");
  EXPECT_EQ(json["cases"][1]["detail"], "a \"quoted\"\nreason");
  EXPECT_EQ(json["cases"][2]["result"], "notAdvertised");
  EXPECT_EQ(json["cases"][3]["result"], "needsAbsent");
  EXPECT_EQ(json["cases"][3]["area"], "b");
}

TEST(Json, abilities_areToldWithTheCasesThatNeedThem) {
  std::vector<Result> results(2);
  results[0] = {"a.one", Kind::kPassed, "", "", {"pause", "smp"}, 1, "what it is about"};
  results[1] = {"a.two", Kind::kPassed, "", "", {"pause"}, 1};
  const auto json = nlohmann::json::parse(resultsJson(kSubject, results));
  EXPECT_EQ(json["cases"][0]["text"], "what it is about");
  EXPECT_FALSE(json["cases"][1].contains("text"));
  std::map<std::string, nlohmann::json> cases;
  for (const auto& ability : json["abilities"]) {
    cases[ability["name"]] = ability["cases"];
    EXPECT_NE(ability["text"], "");
  }
  EXPECT_EQ(cases.size(), plugin::kAbilities.size());
  EXPECT_EQ(cases["pause"], nlohmann::json({"a.one", "a.two"}));
  EXPECT_EQ(cases["smp"], nlohmann::json({"a.one"}));
  EXPECT_EQ(cases["reset"], nlohmann::json::array());
}

TEST(Json, backendThatPassesAll_conforms) {
  const std::vector<Result> results = {{"a.a", Kind::kPassed, "", "", {}, 1}, {"a.b", Kind::kAbsent, "x", "", {}, 1}};
  EXPECT_EQ(nlohmann::json::parse(resultsJson(kSubject, results))["conforms"], true);
}

TEST(Text, lines_tellWhatFailedAndWhatWasNotRun) {
  EXPECT_NE(resultLine({"a.a", Kind::kFailed, "why\x1b[2J", "", {}, 1}).find("FAILED"), std::string::npos);
  EXPECT_EQ(resultLine({"a.a", Kind::kFailed, "why\x1b[2J", "", {}, 1}).find('\x1b'), std::string::npos);
  EXPECT_NE(resultLine({"a.a", Kind::kAbsent, "no kernel", "", {}, 1}).find("no kernel"), std::string::npos);
}

TEST(Verdict, comesBackAsItWasSent) {
  Result read;
  EXPECT_TRUE(decodeVerdict(encodeVerdict({"", Kind::kNotAdvertised, "refused", "seen", {}, 0}), read));
  EXPECT_EQ(read.kind, Kind::kNotAdvertised);
  EXPECT_EQ(read.detail, "refused");
  EXPECT_EQ(read.observed, "seen");
}

TEST(Verdict, whatIsCutShortOrUnknown_isNone) {
  Result read;
  const std::string whole = encodeVerdict({"", Kind::kPassed, "", "", {}, 0});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(decodeVerdict(whole.substr(0, length), read)) << length;
  }
  EXPECT_FALSE(decodeVerdict(std::string("splendid\0\0\0", 11), read));
}

std::string errorOf(std::vector<std::string> words) {
  words.insert(words.begin(), "vmmhost-conformance");
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  try {
    parseOptions(static_cast<int>(words.size()), argv.data());
    return "";
  } catch (const Error& error) {
    return error.message();
  }
}

TEST(Options, whatIsWrong_isNamed) {
  EXPECT_EQ(errorOf({"--backend", "kvm"}), "");
  EXPECT_EQ(errorOf({"--list"}), "");
  EXPECT_NE(errorOf({}).find("--backend NAME or --plugin FILE"), std::string::npos);
  EXPECT_NE(errorOf({"--backend", "kvm", "--plugin", "x"}).find("one of them"), std::string::npos);
  EXPECT_NE(errorOf({"--backend", "kvm", "--kernel", "x"}).find("--initrd"), std::string::npos);
  EXPECT_NE(errorOf({"--backend", "kvm", "--jobs", "0"}).find("--jobs"), std::string::npos);
  EXPECT_NE(errorOf({"--backend", "kvm", "--nonsense"}).find("--nonsense"), std::string::npos);
  EXPECT_NE(errorOf({"--backend", "kvm", "extra"}).find("extra"), std::string::npos);
}

// Real processes: a shell in the place of the program.
class RunJobs : public testing::Test {
 protected:
  RunJobs() {
    adoptOrphans();  // as the program does
    char folder[] = "/tmp/vmmhost-runner-test-XXXXXX";
    folder_ = ::mkdtemp(folder);
  }
  ~RunJobs() override { std::filesystem::remove_all(folder_); }

  void add(const std::string& name, const std::string& script) {
    Job& job = jobs_.emplace_back();
    job.result.name = name;
    job.arguments = {"-c", script};
    job.folder = folder_ + '/' + name;
  }
  std::vector<Result> run(std::chrono::milliseconds deadline = std::chrono::minutes(1)) {
    std::vector<Result> results;
    EXPECT_EQ(runJobs("/bin/sh", jobs_, {2, deadline}, [&](const Result& result) { results.push_back(result); }), 0);
    EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "folders of cases were left";
    EXPECT_TRUE(descendants(::getpid()).empty()) << "processes of cases were left";
    return results;
  }

  std::string folder_;
  std::vector<Job> jobs_;
};

TEST_F(RunJobs, results_comeInOrder) {
  add("slow", "sleep 0.2; printf 'passed\\0\\0seen\\0' >&3");
  add("quick", "printf 'failed\\0why\\0\\0' >&3");
  jobs_.emplace_back().result = {"absent", Kind::kAbsent, "no kernel", "", {}, 0};
  const auto results = run();
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].name, "slow");
  EXPECT_EQ(results[0].kind, Kind::kPassed);
  EXPECT_EQ(results[0].observed, "seen");
  EXPECT_GE(results[0].milliseconds, 200);
  EXPECT_EQ(results[1].kind, Kind::kFailed);
  EXPECT_EQ(results[1].detail, "why");
  EXPECT_EQ(results[2].kind, Kind::kAbsent);
}

TEST_F(RunJobs, processThatCrashes_failsWithItsSignalAndLastWords) {
  add("crash", "echo last words; kill -SEGV $$");
  add("other", "printf 'passed\\0\\0\\0' >&3");
  const auto results = run();
  EXPECT_EQ(results[0].kind, Kind::kFailed);
  EXPECT_NE(results[0].detail.find("SIGSEGV"), std::string::npos) << results[0].detail;
  EXPECT_NE(results[0].detail.find("last words"), std::string::npos) << results[0].detail;
  EXPECT_EQ(results[1].kind, Kind::kPassed);
}

TEST_F(RunJobs, whatACrashLeaves_isEnded_andOtherCasesGoOn) {
  add("crash", "setsid sleep 600 & kill -SEGV $$");
  add("other", "sleep 0.3 && printf 'passed\\0\\0\\0' >&3");
  const auto results = run();
  EXPECT_EQ(results[0].kind, Kind::kFailed);
  EXPECT_EQ(results[1].kind, Kind::kPassed) << results[1].detail;
}

TEST_F(RunJobs, processThatTellsNothing_fails) {
  add("mute", "exit 7");
  add("half", "printf 'passed\\0' >&3");
  const auto results = run();
  EXPECT_EQ(results[0].kind, Kind::kFailed);
  EXPECT_NE(results[0].detail.find("code 7"), std::string::npos) << results[0].detail;
  EXPECT_EQ(results[1].kind, Kind::kFailed);
}

TEST_F(RunJobs, processThatCrashesAfterItsVerdict_fails) {
  add("late", "printf 'passed\\0\\0\\0' >&3; kill -ABRT $$");
  EXPECT_EQ(run()[0].kind, Kind::kFailed);
}

TEST_F(RunJobs, processThatHangs_isEndedWithAllThatItStarted) {
  add("hang", "sleep 600 & sleep 600");
  const auto results = run(std::chrono::milliseconds(300));
  EXPECT_EQ(results[0].kind, Kind::kFailed);
  EXPECT_NE(results[0].detail.find("did not end"), std::string::npos) << results[0].detail;
}

class Leaks : public RunJobs {};

TEST_F(Leaks, nothingLeft_isNothing) {
  LeakCheck leaks(folder_);
  EXPECT_TRUE(leaks.look({::getpid()}).empty());
}

// A child's child, which its parent leaves behind: it falls to this process.
TEST_F(Leaks, processThatIsLeft_isNamedAndEnded) {
  LeakCheck leaks(folder_, std::chrono::milliseconds(20));
  const pid_t pid = ::fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    if (::fork() == 0) {
      ::pause();
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  const auto left = leaks.look({::getpid()});
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].rfind("process ", 0), 0u) << left[0];
  EXPECT_GT(::waitpid(-1, &status, 0), 0);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(Leaks, whatIsLeft_isNamed) {
  LeakCheck leaks(folder_, std::chrono::milliseconds(20));
  std::filesystem::create_directories(folder_ + "/run/forgotten");
  const Fd descriptor(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const auto left = leaks.look({::getpid()});
  ASSERT_EQ(left.size(), 2u);
  EXPECT_NE(left[0].find("/dev/zero"), std::string::npos) << left[0];
  EXPECT_EQ(left[1], "runtime entry forgotten");
}

TEST_F(Leaks, socketThatIsLeft_isNamed) {
  LeakCheck leaks(folder_, std::chrono::milliseconds(20));
  std::filesystem::create_directories(folder_ + "/run");
  {
    // As the product makes its own.
    const Fd folder(::open((folder_ + "/run").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Fd listener = runtime::listenIn(folder.get(), ".door", 1);
  }
  const auto left = leaks.look({::getpid()});
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0], "socket " + folder_ + "/run/.door");
}

TEST_F(Leaks, workerThatItsFilterEnded_isNamed) {
  const auto look = [&] { return LeakCheck(folder_, std::chrono::milliseconds(20)).look({::getpid()}); };
  std::filesystem::create_directories(folder_ + "/state/vm");
  std::ofstream(folder_ + "/state/vm/exit.json") << R"({"detail": "the worker was ended by SIGKILL"})";
  EXPECT_TRUE(look().empty());
  std::ofstream(folder_ + "/state/vm/exit.json") << R"({"detail": "the worker was ended by SIGSYS"})";
  EXPECT_EQ(look(), std::vector<std::string>{"the record of vm, whose worker was ended by SIGSYS"});
}

TEST_F(Leaks, threadThatIsLeft_isCounted) {
  LeakCheck leaks(folder_, std::chrono::milliseconds(20));
  std::promise<void> enough;
  std::thread thread([&] { enough.get_future().wait(); });
  const auto left = leaks.look({::getpid()});
  enough.set_value();
  thread.join();
  EXPECT_EQ(left, std::vector<std::string>{"1 threads"});
}

TEST_F(Leaks, controlGroupThatIsLeft_isNamed_unlessItIsAnothers) {
  const auto group = [](pid_t pid) {
    return std::string("/sys/fs/cgroup/") + (::access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "" : "pids/") +
           "vmmhost-leaks-" + std::to_string(pid);
  };
  LeakCheck leaks(folder_, std::chrono::milliseconds(20));
  if (::mkdir(group(::getpid()).c_str(), 0755) != 0) {
    GTEST_SKIP() << "no control group can be made here";
  }
  EXPECT_EQ(::mkdir(group(1).c_str(), 0755), 0);
  const auto left = leaks.look({::getpid()});
  EXPECT_EQ(left, std::vector<std::string>{"control group " + group(::getpid())});
  removeControlGroups({::getpid(), 1});
  EXPECT_NE(::access(group(::getpid()).c_str(), F_OK), 0);
}

}  // namespace
}  // namespace vmmhost::conformance
