#include "host/plugin/registry.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>

#include "host/plugin/choose_aside.h"
#include "host/plugin/testing.h"
#include "ipc/rpc/connection.h"
#include "tests/support/built.h"

namespace vmmhost::plugin {
namespace {

using namespace testing;
using std::chrono::milliseconds;

class RegistryTest : public ::testing::Test {
 protected:
  // A copy of a plugin for tests in a folder of this test.
  std::string install(const std::string& name, const std::string& into = "plugins", const std::string& as = {}) {
    const fs::path folderPath = root / into;
    fs::create_directories(folderPath);
    const fs::path target = folderPath / ("vmmhost-backend-" + (as.empty() ? name : as) + ".so");
    fs::copy_file(tests::built("lib/test-plugins/vmmhost-backend-" + name + ".so"), target);
    ::chmod(target.c_str(), 0755);
    return target.string();
  }

  RegistryOptions options() {
    RegistryOptions options;
    options.pluginPath = (root / "plugins").string();
    options.probeProgram = tests::built("bin/vmmhost-plugin-probe");
    options.probeTimeout = timeout;
    options.log = [this](int level, std::string_view line) {
      logged += std::to_string(level) + ':' + std::string(line) + '\n';
    };
    return options;
  }
  Registry registry() { return Registry(options()); }

  // What probing one plugin says is wrong with it.
  std::string fault(const std::string& name) {
    const BackendInfo info = registry().probe(name, false);
    EXPECT_TRUE(info.error) << name;
    EXPECT_FALSE(info.usable);
    EXPECT_EQ(info.name, name);
    EXPECT_FALSE(info.path.empty());
    return info.error ? info.error->message() : "";
  }
  void expectContains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  Folder folder;
  fs::path root = fs::canonical(folder.path());
  milliseconds timeout{20000};
  std::string logged;
};

TEST_F(RegistryTest, names_areThoseOfFilesThatCouldBePlugins) {
  install("good");
  install("crash");
  for (const char* other : {"vmmhost-backend-.so", "vmmhost-backend-Upper.so", "vmmhost-backend-x.so.1", "libfoo.so",
                            "vmmhost-backend-a_b.so"}) {
    write(root / "plugins" / other, "");
  }
  write(root / "plugins" / ("vmmhost-backend-" + std::string(33, 'a') + ".so"), "");
  EXPECT_EQ(registry().names(), (std::vector<std::string>{"crash", "good"}));
}

TEST_F(RegistryTest, placesThatAreMissingOrEmpty_arePassedOver) {
  install("good", "user");
  RegistryOptions other = options();
  other.pluginPath = ":" + (root / "nothing").string() + "::";
  other.userDirectory = (root / "user").string();
  EXPECT_EQ(Registry(other).names(), std::vector<std::string>{"good"});
}

TEST_F(RegistryTest, goodPlugin_isProbed) {
  const std::string path = install("good");
  const BackendInfo info = registry().probe("good", true);
  ASSERT_FALSE(info.error) << info.error->message();
  EXPECT_TRUE(info.usable);
  EXPECT_EQ(info.path, path);
  EXPECT_EQ(info.version, "1.2.3");
  EXPECT_EQ(info.description, "A backend for tests");
  EXPECT_EQ(info.preference, 7u);
  EXPECT_EQ(info.acceleration, Acceleration::kEmulated);
  EXPECT_EQ(info.capabilities, (std::vector<std::string>{"boot-pvh", "console-serial"}));
  EXPECT_EQ(info.summary, "a backend for tests\\x1b[31m");
  EXPECT_EQ(info.instructionsPerSecond, 1'300'000u);
  EXPECT_EQ(registry().probe("good", false).instructionsPerSecond, 0u);
}

TEST_F(RegistryTest, whatEveryBadPluginDoes_isSaidAndTheOthersAnswer) {
  for (const char* name :
       {"good", "noentry", "wrongmajor", "newerminor", "short", "wrongname", "crash", "refuses", "throws", "babble"}) {
    install(name);
  }
  write(root / "plugins/vmmhost-backend-text.so", "not an ELF file");
  std::map<std::string, BackendInfo> infos;
  for (BackendInfo& info : registry().probe(false)) {
    infos.emplace(info.name, std::move(info));
  }
  ASSERT_EQ(infos.size(), 11u);
  const auto message = [&](const char* name) {
    const auto& error = infos.at(name).error;
    EXPECT_TRUE(error) << name;
    return error ? error->message() : "";
  };
  EXPECT_TRUE(infos.at("good").usable);
  EXPECT_TRUE(infos.at("newerminor").usable) << infos.at("newerminor").error->message();
  EXPECT_EQ(infos.at("newerminor").version, "9.0");
  expectContains(message("noentry"), "no symbol vmmhost_plugin_entry");
  expectContains(message("wrongmajor"), "version 2.3");
  expectContains(message("wrongmajor"), "version 1.2");
  expectContains(message("short"), "lacks probe, validate or plan");
  expectContains(message("wrongname"), "calls itself \"other\"");
  EXPECT_EQ(message("crash"), "backend crash: crashed with signal 6 while being probed");
  EXPECT_EQ(message("refuses"), "backend refuses: the moon is not full");
  EXPECT_EQ(infos.at("refuses").error->hint(), "wait two weeks");
  EXPECT_TRUE(infos.at("refuses").error->retryable());
  expectContains(message("throws"), "an exception left its function probe: from probe");
  expectContains(message("babble"), "too much");
  expectContains(message("text"), "cannot be loaded");
}

TEST_F(RegistryTest, hangingPlugin_isGivenUpAndNothingOfItIsLeft) {
  install("hang");
  timeout = milliseconds(300);
  // What the plugin started becomes a child of this process when the plugin's process is gone.
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  EXPECT_EQ(fault("hang"), "backend hang: did not answer within 0.3 s");
  int status = 0;
  int orphans = 0;
  while (::waitpid(-1, &status, 0) > 0) {  // comes to an end only if they were killed
    ++orphans;
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
  EXPECT_EQ(orphans, 1);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_F(RegistryTest, oneThatHangs_doesNotKeepTheOthersFromAnswering) {
  install("hang");
  install("good");
  timeout = milliseconds(2000);
  const std::vector<BackendInfo> infos = registry().probe(false);
  ASSERT_EQ(infos.size(), 2u);
  EXPECT_TRUE(infos[0].usable) << infos[0].error->message();
  EXPECT_EQ(infos[0].name, "good");
  EXPECT_TRUE(infos[1].error);
}

TEST_F(RegistryTest, descriptorsOfTheHost_doNotReachTheProbe) {
  install("good");
  const std::string list = (root / "list").string();
  const Variable variable("VMMHOST_TEST_DESCRIPTORS", list);
  const Fd inheritable(::open("/dev/null", O_RDONLY));
  const Fd high(::fcntl(inheritable.get(), F_DUPFD, 700));
  EXPECT_TRUE(registry().probe("good", false).usable);
  EXPECT_EQ(read(list), "0 1 2 3 ");  // 3 is the way back; 4, the plugin itself, was closed once it was loaded
}

TEST_F(RegistryTest, missingProbeProgram_isSaid) {
  install("good");
  RegistryOptions other = options();
  other.probeProgram = (root / "nothing").string();
  const BackendInfo info = Registry(other).probe("good", false);
  ASSERT_TRUE(info.error);
  expectContains(info.error->message(), other.probeProgram);
}

TEST_F(RegistryTest, twoFilesOfOneName_areBothNamed) {
  const std::string first = install("good", "plugins");
  const std::string second = install("good", "user");
  install("newerminor", "user");
  RegistryOptions other = options();
  other.userDirectory = (root / "user").string();
  Registry both(other);
  const Error error = errorOf([&] { both.load("good"); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  expectContains(error.message(), first);
  expectContains(error.message(), second);
  const std::vector<BackendInfo> infos = both.probe(false);
  ASSERT_EQ(infos.size(), 2u);
  EXPECT_TRUE(infos[0].error);
  EXPECT_TRUE(infos[1].usable);
}

TEST_F(RegistryTest, oneFileReachedThroughTwoFolders_countsOnce) {
  install("good");
  fs::create_directory_symlink("plugins", root / "same");
  RegistryOptions other = options();
  other.pluginPath += ":" + other.pluginPath + ":" + (root / "same").string();
  EXPECT_NO_THROW(Registry(other).load("good"));
}

TEST_F(RegistryTest, untrustedFile_isNeitherProbedNorLoaded) {
  const std::string path = install("crash");
  ::chmod(path.c_str(), 0777);
  expectContains(fault("crash"), "not trusted");
  EXPECT_EQ(errorOf([&] { registry().load("crash"); }).code(), ErrorCode::kConfinement);
  ::chmod(path.c_str(), 0755);
  ::chmod((root / "plugins").c_str(), 0775);
  EXPECT_EQ(errorOf([&] { registry().load("crash"); }).code(), ErrorCode::kConfinement);
}

TEST_F(RegistryTest, fileOfAnotherUser_isNotLoaded) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  const std::string path = install("crash");
  ASSERT_EQ(::chown(path.c_str(), 1000, 1000), 0);
  EXPECT_EQ(errorOf([&] { registry().load("crash"); }).code(), ErrorCode::kConfinement);
}

TEST_F(RegistryTest, unknownName_isNotFoundWithWhatThereIs) {
  install("good");
  const Error error = errorOf([&] { registry().load("god"); });
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_EQ(error.hint(), "there is: good");
  for (const char* hostile : {"", "../plugins/vmmhost-backend-good", "good\n", "/etc/passwd"}) {
    EXPECT_EQ(errorOf([&] { registry().probe(hostile, false); }).code(), ErrorCode::kNotFound) << hostile;
  }
  EXPECT_EQ(errorOf([&] { registry().load("\x1b[2J"); }).message(), "there is no backend \"\\x1b[2J\"");
}

TEST_F(RegistryTest, cachedResult_sparesTheProbe) {
  const std::string path = install("good");
  const std::string counter = (root / "counter").string();
  const Variable variable("VMMHOST_TEST_COUNTER", counter);
  const std::string watched = (root / "watched").string();
  const Variable watchedVariable("VMMHOST_TEST_WATCHED", watched);
  RegistryOptions cached = options();
  cached.cacheDirectory = (root / "made/cache").string();
  const auto probe = [&](bool measure) {
    const BackendInfo info = Registry(cached).probe("good", measure);
    EXPECT_TRUE(info.usable);
    EXPECT_EQ(info.path, path);
    return read(counter);
  };
  EXPECT_EQ(probe(false), "x");
  EXPECT_EQ(probe(false), "x");
  struct stat status = {};
  ASSERT_EQ(::stat(cached.cacheDirectory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  // A measurement is asked for anew, and then serves both.
  EXPECT_EQ(probe(true), "xx");
  EXPECT_EQ(probe(false), "xx");
  EXPECT_EQ(Registry(cached).probe("good", true).instructionsPerSecond, 1'300'000u);
  EXPECT_EQ(read(counter), "xx");
  // Another file: the same content, other times.
  fs::copy_file(path, root / "copy");
  fs::rename(root / "copy", path);
  EXPECT_EQ(probe(true), "xxx");
  // What the answer depends on appears.
  write(watched, "");
  EXPECT_EQ(probe(true), "xxxx");
  EXPECT_EQ(probe(true), "xxxx");
  // Damage.
  const fs::path file = fs::path(cached.cacheDirectory) / "probe-good";
  std::string bytes = read(file);
  ASSERT_FALSE(bytes.empty());
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  write(file, bytes, 0600);
  EXPECT_EQ(probe(true), "xxxxx");
  write(file, "", 0600);
  EXPECT_EQ(probe(true), "xxxxxx");
  write(file, "vmmhost-probe-1 1 18446744073709551615 cbf29ce484222325\n", 0600);
  EXPECT_EQ(probe(true), "xxxxxxx");
  EXPECT_EQ(probe(true), "xxxxxxx");
  // Others have access to the folder: nothing in it counts.
  ::chmod(cached.cacheDirectory.c_str(), 0755);
  EXPECT_EQ(probe(true), "xxxxxxxx");
}

TEST_F(RegistryTest, unusableAnswers_areNotKept) {
  install("good");
  RegistryOptions cached = options();
  cached.cacheDirectory = (root / "cache").string();
  {
    const Variable variable("VMMHOST_TEST_UNUSABLE", "1");
    EXPECT_FALSE(Registry(cached).probe("good", false).usable);
  }
  EXPECT_TRUE(Registry(cached).probe("good", false).usable);
}

TEST_F(RegistryTest, whatAPluginLogsWhileItIsProbed_isTold_thoughItCrashes) {
  install("crashprobe");
  EXPECT_TRUE(registry().probe("crashprobe", false).error);
  const std::string said =
      "3:backend crashprobe, being probed: about to crash\n"
      "2:backend crashprobe, being probed: \\x1b[2Jand so it does\n";
  EXPECT_EQ(logged, said);
  logged.clear();
  errorOf([&] { registry().load("crashprobe"); });
  EXPECT_EQ(logged, said);
  logged.clear();
  std::string other;
  errorOf([&] {
    registry().choose(
        -1, [&](int level, std::string_view line) { other += std::to_string(level) + ':' + std::string(line) + '\n'; });
  });
  EXPECT_EQ(other, said);
  EXPECT_EQ(logged, "");
}

TEST_F(RegistryTest, whatAPluginSaysWithoutEnd_isCut_andNoHindrance) {
  install("chatter");
  const BackendInfo info = registry().probe("chatter", false);
  EXPECT_FALSE(info.error) << info.error->message();
  EXPECT_EQ(std::count(logged.begin(), logged.end(), '\n'), 32);
}

TEST_F(RegistryTest, loadedPlugin_validatesAndPlans) {
  const std::string path = install("good");
  write(root / "libexec/worker", "#!", 0755);
  Registry host = registry();
  const std::shared_ptr<Plugin> plugin = host.load("good");
  EXPECT_EQ(host.load("good"), plugin);
  EXPECT_EQ(plugin->name(), "good");
  EXPECT_EQ(plugin->version(), "1.2.3");
  EXPECT_EQ(plugin->path(), path);

  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.setName("accepted");
  EXPECT_NO_THROW(plugin->validate(config.asReader()));
  config.setName("refused");
  const Error error = errorOf([&] { plugin->validate(config.asReader()); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.message(), "backend good: name: \\x1b[2Jrefused");
  EXPECT_EQ(error.hint(), "take another");
  EXPECT_EQ(error.field(), "name");
  EXPECT_TRUE(error.retryable());
  EXPECT_EQ(logged, "2:refusing\\na name\n");

  for (const std::string& field : {std::string("\x1b[2J"), std::string(Error::kMaxFieldBytes + 1, 'x')}) {
    const Variable hostile("VMMHOST_TEST_FIELD", field);
    EXPECT_EQ(errorOf([&] { plugin->validate(config.asReader()); }).field(), "");
  }

  const LaunchPlan plan = plugin->plan(config.asReader());
  EXPECT_EQ(plan.workerPath, (root / "libexec/worker").string());
  EXPECT_EQ(plan.argv, (std::vector<std::string>{"worker", "--released", "0"}));
  EXPECT_EQ(plan.root, LaunchPlan::Root::kSystem);
  EXPECT_TRUE(plan.proc && plan.tmp && !plan.dev);
  EXPECT_EQ(plan.seccompPolicy, "worker-system");
  EXPECT_EQ(plan.devices.at(0).path, "/dev/kvm");
  EXPECT_TRUE(plan.devices.at(0).optional);
  EXPECT_EQ(plan.rlimits.at(0).value, 64u);
  EXPECT_EQ(plan.maxProcesses, 12u);
  EXPECT_EQ(plan.helloTimeout, milliseconds(1234));
  // The first plan was given back.
  EXPECT_EQ(plugin->plan(config.asReader()).argv.back(), "1");
}

TEST_F(RegistryTest, faultsOfALoadedPlugin_areErrors) {
  install("throws");
  const std::shared_ptr<Plugin> plugin = registry().load("throws");
  capnp::MallocMessageBuilder message;
  const auto config = message.initRoot<schema::VmConfig>().asReader();
  const Error thrown = errorOf([&] { plugin->validate(config); });
  EXPECT_EQ(thrown.code(), ErrorCode::kInternal);
  EXPECT_EQ(thrown.message(), "backend throws: an exception left its function validate");
  EXPECT_EQ(errorOf([&] { plugin->plan(config); }).message(),
            "backend throws: its function plan failed without saying why");
}

TEST_F(RegistryTest, pluginThatCrashesOrHangs_isNotLoaded) {
  install("crash");
  install("hang");
  install("babble");
  EXPECT_EQ(errorOf([&] { registry().load("crash"); }).message(),
            "backend crash: crashed with signal 6 while being probed");
  expectContains(errorOf([&] { registry().load("babble"); }).message(), "answered with too much");
  timeout = milliseconds(300);
  EXPECT_EQ(errorOf([&] { registry().load("hang"); }).message(), "backend hang: did not answer within 0.3 s");
}

TEST_F(RegistryTest, loadedAgain_isNotProbedAgain) {
  const std::string counter = (root / "counter").string();
  const Variable variable("VMMHOST_TEST_COUNTER", counter);
  install("good");
  RegistryOptions cached = options();
  cached.cacheDirectory = (root / "cache").string();
  Registry(cached).load("good");
  EXPECT_EQ(fs::file_size(counter), 1u);
  Registry(cached).load("good");
  EXPECT_EQ(fs::file_size(counter), 1u);
}

// The loader knows files by their paths first: with a plain path to a descriptor the second would be the first again.
TEST_F(RegistryTest, pluginsLoadedThroughTheSameDescriptorNumber_areNotMixedUp) {
  install("good");
  install("newerminor");
  Registry host = registry();
  EXPECT_EQ(host.load("good")->name(), "good");
  EXPECT_EQ(host.load("newerminor")->name(), "newerminor");
  EXPECT_EQ(registry().load("good")->version(), "1.2.3");
}

TEST_F(RegistryTest, auto_takesWhatIsUsable) {
  install("good");
  install("newerminor");
  install("crash");
  const Registry::Choice choice = registry().choose();
  EXPECT_EQ(choice.backend.name, "newerminor");
  expectContains(choice.reason, "good is present, but emulating (1.3 MIPS)");
  EXPECT_EQ(choice.reason.find('\n'), std::string::npos);
}

TEST_F(RegistryTest, loopGoesOn_whileAPluginHangsAndUntilTheChoiceIsGivenUp) {
  install("good");
  install("hang");
  timeout = std::chrono::minutes(10);  // longer than the test may take
  auto io = kj::setupAsyncIo();
  bool chosen = false;
  auto choice = chooseAside(io.unixEventPort, std::make_shared<Registry>(options()))
                    .then([&chosen](Registry::Choice) { chosen = true; })
                    .eagerlyEvaluate(nullptr);
  io.provider->getTimer().afterDelay(50 * kj::MILLISECONDS).wait(io.waitScope);
  EXPECT_FALSE(chosen);
  choice = nullptr;
}

TEST_F(RegistryTest, choiceMadeAside_andItsErrorsComeThrough) {
  auto io = kj::setupAsyncIo();
  const auto choose = [&]() {
    return chooseAside(io.unixEventPort, std::make_shared<Registry>(options())).wait(io.waitScope);
  };
  try {
    choose();
    ADD_FAILURE() << "there is no plugin";
  } catch (const kj::Exception& exception) {
    EXPECT_EQ(rpc::fromKj(exception).code(), ErrorCode::kUnavailable);
  }
  install("newerminor");
  EXPECT_EQ(choose().backend.name, "newerminor");
}

}  // namespace
}  // namespace vmmhost::plugin
