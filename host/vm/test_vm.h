// What the tests of a whole VM share: one on the worker of tests/fake, in its jail, and what it leaves.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "host/plugin/registry.h"
#include "host/runtime/directories.h"
#include "host/vm/vm.h"
#include "ipc/rpc/connection.h"
#include "tests/support/built.h"
#include "tests/support/children.h"

namespace vmmhost::vm::testing {

namespace fs = std::filesystem;
using schema::EndCause;
using schema::EndKind;
using schema::VmState;

class VmTest : public ::testing::Test {
 protected:
  using Stream = kj::Own<kj::AsyncIoStream>;

  VmTest() {
    std::string pattern = ::testing::TempDir() + "vmmhost-vm-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    Fd folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    log_.setFile(std::make_unique<RotatingFile>(folder.get(), "log", 8 << 20));
    folder.reset();
    plugin::RegistryOptions options;
    options.pluginPath = tests::built("lib/fake-plugins");
    options.probeProgram = tests::built("bin/vmmhost-plugin-probe");
    options.probeTimeout = std::chrono::seconds(30);
    plugin_ = plugin::Registry(options).load("fake");
    if (::geteuid() == 0) {
      lease_ = runtime::UidLease::take();
    }
    before_ = descriptors();
  }
  ~VmTest() noexcept override {
    letGo();
    EXPECT_EQ(tests::children(), std::set<pid_t>());
    EXPECT_EQ(descriptors(), before_);
    for (const std::string& group : groups_) {
      EXPECT_FALSE(fs::exists(group)) << group;
    }
    EXPECT_EQ(log().find("SIGSYS"), std::string::npos) << log();
    fs::remove_all(folder_);
  }

  // Of `guest` of tests/guests, with what makes its worker fail on the command line. `change` may make it another.
  Vm& make(const std::string& guest, const std::string& faults = {},
           const std::function<void(schema::VmConfig::Builder, VmSpec&)>& change = {}) {
    letGo();
    VmSpec spec;
    spec.config = std::make_unique<capnp::MallocMessageBuilder>();
    auto config = spec.config->initRoot<schema::VmConfig>();
    config.setName("v");
    config.initBoot().initKernel().setPath(tests::built("guests/" + guest + ".elf"));
    config.getBoot().setCmdline(faults);
    config.initMemory().setSize(std::uint64_t{8} << 20);
    spec.backend = "fake";
    spec.workingDirectory = "/";
    spec.uid = lease_ ? lease_->uid() : ::geteuid();
    spec.gid = lease_ ? lease_->uid() : ::getegid();
    spec.groupName = "vm-test-" + std::to_string(::getpid());
    spec.onCgroups = [this](const std::vector<std::string>& groups) { groups_ = groups; };
    if (change) {
      change(config, spec);
    }
    spec.plan = plugin_->plan(config.asReader());
    vm_ = std::make_unique<Vm>(io_, std::move(spec), log_, meter_);
    states_.clear();
    watch_ = vm_->life().watch([this](VmState state, std::int64_t, const std::string&) { states_.push_back(state); });
    return *vm_;
  }
  Vm& run(const std::string& guest, const std::string& faults = {},
          const std::function<void(schema::VmConfig::Builder, VmSpec&)>& change = {}) {
    make(guest, faults, change).start().wait(io_.waitScope);
    return *vm_;
  }
  const Outcome& end() {
    vm_->onEnded().wait(io_.waitScope);
    return vm_->outcome();
  }
  void letGo() {
    watch_.reset();
    vm_.reset();
  }

  // The error of a call, which may throw it or reject its promise.
  template <typename Call>
  Error errorOf(Call call) {
    return kj::evalNow(rpc::guarded(std::move(call)))
        .then([](auto&&...) { return Error(ErrorCode::kUnknown, "none"); },
              [](kj::Exception&& exception) { return rpc::fromKj(exception); })
        .wait(io_.waitScope);
  }
  void expectOk(const std::function<kj::Promise<void>()>& call) { EXPECT_EQ(errorOf(call).message(), "none"); }

  Stream attach(std::uint32_t port = 0, std::uint32_t replayBytes = 65536) {
    return io_.lowLevelProvider->wrapSocketFd(
        kj::AutoCloseFd(vm_->consoles().attach(port, replayBytes, true).release()));
  }
  void expectToRead(Stream& from, const std::string& expected) {
    std::string text(expected.size(), '\0');
    text.resize(from->tryRead(text.data(), text.size(), text.size()).wait(io_.waitScope));
    EXPECT_EQ(text, expected);
  }
  void write(Stream& to, const std::string& text) { to->write(text.data(), text.size()).wait(io_.waitScope); }
  std::string readToTheEnd(Stream& from) { return from->readAllText().wait(io_.waitScope).cStr(); }

  // Lets the event loop run until this holds.
  template <typename Condition>
  bool becomes(Condition condition) {
    auto& timer = io_.provider->getTimer();
    const auto end = timer.now() + 30 * kj::SECONDS;
    while (!condition() && timer.now() < end) {
      timer.afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
    return condition();
  }
  bool isPast(const std::string& phase) {
    capnp::MallocMessageBuilder message;
    auto info = message.initRoot<schema::VmInfo>();
    vm_->describe(info);
    for (const auto timing : info.asReader().getTimings()) {
      if (phase == timing.getPhase().cStr()) {
        return true;
      }
    }
    return false;
  }
  pid_t workerPid() {
    capnp::MallocMessageBuilder message;
    auto info = message.initRoot<schema::VmInfo>();
    vm_->describe(info);
    return info.getWorkerPid();
  }

  std::string log() const {
    std::ifstream file(folder_ + "/log");
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static std::set<int> descriptors() {
    std::set<int> found;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      found.insert(std::stoi(entry.path().filename()));
    }
    return found;  // that of the search itself included, which is the same number each time
  }

  std::string folder_;
  Log log_{nullptr, false};
  std::shared_ptr<plugin::Plugin> plugin_;
  std::optional<runtime::UidLease> lease_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  MemoryMeter meter_{io_.unixEventPort};
  std::vector<std::string> groups_;
  std::vector<VmState> states_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Life::Watch> watch_;
  std::set<int> before_;
};

}  // namespace vmmhost::vm::testing
