#include "host/launch/launcher.h"

#include <fcntl.h>
#include <kj/async-io.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/plugin/testing.h"
#include "ipc/jail/spawn/spawn.h"
#include "ipc/rpc/connection.h"
#include "tests/support/built.h"

namespace vmmhost::launch {
namespace {

using namespace plugin::testing;

class LauncherTest : public ::testing::Test {
 protected:
  ~LauncherTest() noexcept override = default;

  void install(const std::string& name) {
    const fs::path folderPath = root / "plugins";
    fs::create_directories(folderPath);
    const fs::path target = folderPath / ("vmmhost-backend-" + name + ".so");
    fs::copy_file(tests::built("lib/test-plugins/vmmhost-backend-" + name + ".so"), target);
    ::chmod(target.c_str(), 0755);
    write(root / "libexec/worker", "#!", 0755);
  }
  std::shared_ptr<plugin::Registry> registry() const {
    plugin::RegistryOptions options;
    options.pluginPath = (root / "plugins").string();
    options.probeProgram = tests::built("bin/vmmhost-plugin-probe");
    options.probeTimeout = std::chrono::seconds(20);
    return std::make_shared<plugin::Registry>(options);
  }
  static std::unique_ptr<capnp::MallocMessageBuilder> config(const char* name = "") {
    auto message = std::make_unique<capnp::MallocMessageBuilder>();
    auto root = message->initRoot<schema::VmConfig>();
    root.setName(name);
    root.initBoot().initKernel().setPath("kernel");
    root.getMemory().setSize(64 << 20);
    return message;
  }
  // The error of the promise, or of what follows it.
  static Error errorIn(const std::function<void()>& run) {
    try {
      run();
    } catch (const kj::Exception& exception) {
      return rpc::fromKj(exception);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return Error(ErrorCode::kUnknown, "");
  }
  Launch made(Options options, std::unique_ptr<capnp::MallocMessageBuilder> from = config("vm")) {
    Launcher launcher(std::move(options), std::move(from), "vm");
    launcher.choose(io.unixEventPort, registry()).wait(io.waitScope);
    return launcher.make();
  }

  Folder folder;
  fs::path root = fs::canonical(folder.path());
  kj::AsyncIoContext io = kj::setupAsyncIo();
};

TEST_F(LauncherTest, namedBackend_isProvenAndTaken_withoutAReason) {
  install("good");
  Options options{"good", "/there", std::chrono::milliseconds(1500), {std::string(spawn::kPartNames[0])}};
  Launch launch = made(options);
  EXPECT_EQ(launch.spec.backend, "good");
  EXPECT_EQ(launch.spec.choice, "");
  EXPECT_EQ(launch.spec.workingDirectory, "/there");
  EXPECT_EQ(launch.spec.timeout.count(), 1500);
  EXPECT_EQ(launch.spec.without, std::set<std::string>{std::string(spawn::kPartNames[0])});
  EXPECT_EQ(launch.spec.plan.seccompPolicy, "worker-system");
  EXPECT_EQ(launch.spec.config->getRoot<schema::VmConfig>().getName(), "vm");
}

// A log as supervisors and programs that embed have one, and the registry that they use.
TEST_F(LauncherTest, whatPluginsLog_isInTheLog) {
  install("good");
  install("crashprobe");
  const auto directory = Fd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  Log log(std::make_unique<RotatingFile>(directory.get(), "log", 1u << 20), false);
  InstallPaths installation;
  installation.pluginProbe = tests::built("bin/vmmhost-plugin-probe");
  const plugin::testing::Variable cache("XDG_CACHE_HOME", (root / "cache").string());
  const auto choose = [&](const char* backend) {
    Launcher launcher({backend, "/", {}, {}}, config("refused"), "vm");
    launcher.choose(io.unixEventPort, makeRegistry(installation, (root / "plugins").string(), log)).wait(io.waitScope);
    launcher.make();
  };
  errorIn([&] { choose("good"); });
  EXPECT_NE(read(root / "log").find(" warning plugin: refusing\\na name\n"), std::string::npos) << read(root / "log");
  errorIn([&] { choose("crashprobe"); });
  EXPECT_NE(read(root / "log").find(" error plugin: backend crashprobe, being probed: about to crash\n"),
            std::string::npos)
      << read(root / "log");
}

TEST_F(LauncherTest, noBackendAndAuto_areTheSame) {
  install("good");
  for (const char* backend : {"", "auto"}) {
    const Launch launch = made({backend, ".", {}, {}});
    EXPECT_EQ(launch.spec.backend, "good") << backend;
    EXPECT_NE(launch.spec.choice, "") << backend;
  }
}

TEST_F(LauncherTest, userIds_areTheCallers_orOfItsOwnForRoot) {
  install("good");
  const Launch launch = made({"good", ".", {}, {}});
  EXPECT_EQ(launch.lease.has_value(), ::geteuid() == 0);
  EXPECT_EQ(launch.spec.uid, launch.lease ? launch.lease->uid() : ::geteuid());
  EXPECT_EQ(launch.spec.gid, launch.lease ? launch.lease->uid() : ::getegid());
  EXPECT_NE(launch.spec.uid, 0U);
}

TEST_F(LauncherTest, configurationWithoutAName_getsOne) {
  const Launcher one({}, config(), "owned");
  const Launcher other({}, config(), "owned");
  const std::string name = one.config().getName().cStr();
  EXPECT_EQ(name.rfind("owned-", 0), 0U) << name;
  EXPECT_NE(name, other.config().getName().cStr());
  EXPECT_STREQ(Launcher({}, config("mine"), "owned").config().getName().cStr(), "mine");
}

TEST_F(LauncherTest, unknownPartOfTheJail_isRefusedByName_beforeAnythingIsTried) {
  Options options;
  options.without = {std::string(spawn::kPartNames[0]), "seat\nbelt"};
  const Error error = errorIn([&] { Launcher(options, config("vm"), "vm"); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(error.message().find("\"seat\\nbelt\""), std::string::npos) << error.message();
  EXPECT_NE(error.hint().find(spawn::kPartNames[0]), std::string::npos) << error.hint();
}

TEST_F(LauncherTest, configurationThatIsNotValid_isRefused) {
  EXPECT_EQ(errorIn([&] { Launcher({}, config("no/name"), "vm"); }).code(), ErrorCode::kInvalidArgument);
}

TEST_F(LauncherTest, refusalsOfAPlugin_comeThrough) {
  install("good");
  EXPECT_EQ(errorIn([&] { made({"nosuch", ".", {}, {}}); }).code(), ErrorCode::kNotFound);
  const Error refused = errorIn([&] { made({"good", ".", {}, {}}, config("refused")); });
  EXPECT_EQ(refused.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(refused.message(), "backend good: name: \\x1b[2Jrefused");
}

TEST_F(LauncherTest, refusedLaunch_leavesTheConfigurationToBeTold) {
  install("good");
  Launcher launcher({"good", ".", {}, {}}, config("refused"), "vm");
  launcher.choose(io.unixEventPort, registry()).wait(io.waitScope);
  errorIn([&] { launcher.make(); });
  EXPECT_STREQ(launcher.config().getName().cStr(), "refused");
  EXPECT_EQ(launcher.backend(), "good");
}

TEST_F(LauncherTest, choiceThatIsGivenUp_ends) {
  install("hang");
  Launcher launcher({"", ".", {}, {}}, config("vm"), "vm");
  bool isChosen = false;
  auto choice = launcher.choose(io.unixEventPort, registry())
                    .then([&isChosen]() { isChosen = true; }, [](kj::Exception&&) {})
                    .eagerlyEvaluate(nullptr);
  kj::evalLast([]() {}).wait(io.waitScope);
  EXPECT_FALSE(isChosen);
  choice = nullptr;
}

}  // namespace
}  // namespace vmmhost::launch
