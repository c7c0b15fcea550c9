// What a client's hello leaves in the log of a VM.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "host/base/build_info.h"
#include "host/base/log.h"
#include "host/control/control_server.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/fd.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::control {
namespace {

namespace fs = std::filesystem;

class NoVm final : public Target {
 public:
  vm::Vm* vm() override { return nullptr; }
  kj::Promise<void> onConsole() override { return kj::NEVER_DONE; }
  kj::Promise<void> onStarted() override { return kj::NEVER_DONE; }
  kj::Promise<void> onFinished() override { return kj::NEVER_DONE; }
  const vm::Outcome& outcome() override { return outcome_; }
  kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds) override { return std::uint64_t{0}; }
  void describe(schema::VmInfo::Builder, std::uint64_t) override {}
  kj::Promise<void> stop(schema::EndKind, std::string, int) override { return kj::READY_NOW; }
  void starterDetached() override {}
  void starterGone() override {}

 private:
  vm::Outcome outcome_;
};

class HelloTest : public ::testing::Test {
 public:
  HelloTest() {
    std::string pattern = (fs::temp_directory_path() / "vmmhost-test-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    const Fd folder(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    log_.setFile(std::make_unique<RotatingFile>(folder.get(), "log", std::size_t{1} << 20));
  }
  ~HelloTest() noexcept override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

 protected:
  // A connection of its own, which says hello so many times.
  std::string greet(const std::string& build, int times = 1) {
    rpc::SocketPair pair = rpc::makeSocketPair();
    server_.serveStarter(std::move(pair.remote));
    rpc::Connection connection(io_, std::move(pair.local), rpc::Side::kClient, rpc::Limits());
    auto control = connection.bootstrap<schema::Control>();
    std::string answered;
    for (int i = 0; i < times; ++i) {
      auto request = control.helloRequest();
      request.setClientMajor(schema::CONTROL_MAJOR);
      if (!build.empty()) {
        request.setBuild(build);
      }
      answered = request.send().wait(io_.waitScope).getBuild().cStr();
    }
    return answered;
  }
  std::string log() const {
    std::ifstream file(root_ / "log");
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::size_t lines() const {
    const std::string text = log();
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }

  fs::path root_;
  Log log_{nullptr, false};
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  NoVm target_;
  ControlServer server_{io_, target_, log_};
};

TEST_F(HelloTest, bothBuilds_areTold) {
  EXPECT_EQ(greet("vmmhost 0.0.1"), kBuild);
  EXPECT_NE(
      log().find("control: a client is of another build, \"vmmhost 0.0.1\"; this supervisor is " + std::string(kBuild)),
      std::string::npos)
      << log();
}

TEST_F(HelloTest, clientOfThisBuild_isNotLogged) {
  greet(std::string(kBuild));
  EXPECT_EQ(log(), "");
}

TEST_F(HelloTest, clientThatTellsNoBuild_isLogged) {
  greet("");
  EXPECT_NE(log().find("a client tells no build"), std::string::npos) << log();
}

TEST_F(HelloTest, clientThatComesAgain_isLoggedOnce) {
  greet("vmmhost 0.0.1", 3);
  greet("vmmhost 0.0.1");
  EXPECT_EQ(lines(), 1u) << log();
  greet("vmmhost 0.0.2");
  EXPECT_EQ(lines(), 2u) << log();
}

TEST_F(HelloTest, clientThatSaysHelloAgainAndAgain_isLoggedByItsFirst) {
  rpc::SocketPair pair = rpc::makeSocketPair();
  server_.serveStarter(std::move(pair.remote));
  rpc::Connection connection(io_, std::move(pair.local), rpc::Side::kClient, rpc::Limits());
  auto control = connection.bootstrap<schema::Control>();
  for (int i = 0; i < 10; ++i) {
    auto request = control.helloRequest();
    request.setClientMajor(schema::CONTROL_MAJOR);
    request.setBuild("vmmhost 0.0." + std::to_string(i));
    request.send().wait(io_.waitScope);
  }
  EXPECT_EQ(lines(), 1u) << log();
}

TEST_F(HelloTest, clientsBuild_isLoggedBoundedAndPrintable) {
  greet("\x1b[2J\n" + std::string(4000, 'x'));
  EXPECT_EQ(lines(), 1u) << log();
  EXPECT_EQ(log().find('\x1b'), std::string::npos);
  EXPECT_LT(log().size(), 256u) << log();
}

}  // namespace
}  // namespace vmmhost::control
