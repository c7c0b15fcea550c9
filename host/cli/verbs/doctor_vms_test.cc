#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/base/build_info.h"
#include "host/base/log.h"
#include "host/cli/verbs/doctor.h"
#include "host/runtime/acceptor.h"
#include "host/runtime/directories.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kLong{60'000};

class Supervisor final : public schema::Control::Server {
 public:
  Supervisor(std::string build, std::uint16_t major) : build_(std::move(build)), major_(major) {}
  kj::Promise<void> hello(HelloContext context) override {
    context.getResults().setMajor(major_);
    if (!build_.empty()) {
      context.getResults().setBuild(build_);
    }
    return kj::READY_NOW;
  }

 private:
  const std::string build_;
  const std::uint16_t major_;
};

class DoctorVms : public ::testing::Test {
 public:
  DoctorVms() {
    std::string pattern = (fs::temp_directory_path() / "vmmhost-test-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    directories_ = runtime::Directories::open({(root_ / "run").string(), (root_ / "state").string()});
  }
  ~DoctorVms() noexcept override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

 protected:
  struct Vm {
    runtime::Reservation reservation;
    Fd listener;
    std::unique_ptr<runtime::Acceptor> acceptor;
    std::list<rpc::Connection> connections;
  };

  // A VM whose supervisor takes connections and never reads from them.
  Vm& silent(const std::string& name) {
    Vm& vm = vms_.emplace_back(Vm{runtime::Reservation::take(directories_, runtime::vmName(name)), {}, {}, {}});
    vm.listener = vm.reservation.listenControl();
    return vm;
  }
  void add(const std::string& name, const std::string& build, std::uint16_t major = schema::CONTROL_MAJOR) {
    Vm& vm = silent(name);
    vm.acceptor = std::make_unique<runtime::Acceptor>(io_, std::move(vm.listener), log_, "control");
    vm.acceptor->start([this, &vm, build, major](Fd socket, pid_t) {
      vm.connections.emplace_back(io_, std::move(socket), rpc::Side::kServer, rpc::Limits{},
                                  kj::heap<Supervisor>(build, major));
    });
  }
  std::vector<std::string> found(milliseconds limit = kLong) {
    vmBuilds_ = vmsOfOtherBuilds(io_, directories_, limit);
    std::vector<std::string> lines;
    for (const VmBuild& vm : vmBuilds_) {
      lines.push_back(vm.name + ' ' + std::to_string(static_cast<int>(vm.status)) + ' ' + vm.build);
    }
    return lines;
  }
  static std::string line(const char* name, VmBuild::Status status, const std::string& build) {
    return std::string(name) + ' ' + std::to_string(static_cast<int>(status)) + ' ' + build;
  }

  fs::path root_;
  runtime::Directories directories_;
  Log log_{nullptr, false};
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::list<Vm> vms_;
  std::vector<VmBuild> vmBuilds_;
};

TEST_F(DoctorVms, ofThisBuild_areNotListed) {
  EXPECT_TRUE(found().empty());
  add("web", std::string(kBuild));
  EXPECT_TRUE(found().empty());
  EXPECT_EQ(textOf(vmBuilds_), "");
}

TEST_F(DoctorVms, ofOtherBuilds_areListedByName) {
  add("d", "vmmhost 0.0.1");
  add("b", "else 1.2");
  add("c", std::string(kBuild));
  add("a", "");
  EXPECT_EQ(found(), (std::vector<std::string>{line("a", VmBuild::Status::kOlder, ""),
                                               line("b", VmBuild::Status::kOther, "else 1.2"),
                                               line("d", VmBuild::Status::kOlder, "vmmhost 0.0.1")}));
}

TEST_F(DoctorVms, ofAnotherMajorVersion_isListedWithItsBuild) {
  add("web", "vmmhost 9.0", schema::CONTROL_MAJOR + 1);
  EXPECT_EQ(found(), std::vector<std::string>{line("web", VmBuild::Status::kOther, "vmmhost 9.0")});
}

TEST_F(DoctorVms, whatIsTold_isBoundedAndPrintable) {
  add("web", "\x1b[2J" + std::string(10'000, 'x'));
  ASSERT_EQ(found().size(), 1u);
  EXPECT_LE(vmBuilds_[0].build.size(), kMaxBuildBytes);
  EXPECT_EQ(vmBuilds_[0].build.substr(0, 8), "\\x1b[2Jx");
}

TEST_F(DoctorVms, withoutAnAnswer_isListedAsThat) {
  silent("web");
  EXPECT_EQ(found(milliseconds(20)), std::vector<std::string>{line("web", VmBuild::Status::kNotAnswering, "")});
}

TEST_F(DoctorVms, thatHasNoSocketYet_isListedAsNotAnswering) {
  vms_.emplace_back(Vm{runtime::Reservation::take(directories_, runtime::vmName("web")), {}, {}, {}});
  EXPECT_EQ(found(), std::vector<std::string>{line("web", VmBuild::Status::kNotAnswering, "")});
}

TEST_F(DoctorVms, thatEndsMeanwhile_isNotListed) {
  Vm& vm = silent("web");
  vm.acceptor = std::make_unique<runtime::Acceptor>(io_, std::move(vm.listener), log_, "control");
  vm.acceptor->start([&vm](Fd, pid_t) { vm.reservation.release(true); });
  EXPECT_TRUE(found().empty());
}

TEST(DoctorVmsText, isALineEach_thatTellsWhatToDo) {
  EXPECT_EQ(textOf({{"web", VmBuild::Status::kOlder, "vmmhost 0.0.1"},
                    {"db", VmBuild::Status::kOlder, ""},
                    {"log", VmBuild::Status::kOther, "vmmhost 9.0"},
                    {"dns", VmBuild::Status::kNotAnswering, ""}}),
            "warning  VM web: its supervisor is of an older build, vmmhost 0.0.1, and goes on working: restart the VM "
            "when convenient\n"
            "warning  VM db: its supervisor is of an older build that does not tell its version, and goes on working: "
            "restart the VM when convenient\n"
            "warning  VM log: its supervisor is of another build, vmmhost 9.0, and goes on working: restart the VM "
            "when convenient\n"
            "warning  VM dns: its supervisor does not answer, so that its build is not known: try again; `vmmhost logs "
            "--vmm dns` may tell why\n");
}

TEST(DoctorVmsText, jsonHasTheSame) {
  config::JsonWriter json;
  writeVms(json, {{"web", VmBuild::Status::kOlder, "vmmhost 0.0.1"}, {"dns", VmBuild::Status::kNotAnswering, ""}});
  const auto vms = nlohmann::json::parse(json.str());
  ASSERT_EQ(vms.size(), 2u);
  EXPECT_EQ(vms[0]["name"], "web");
  EXPECT_EQ(vms[0]["status"], "older");
  EXPECT_EQ(vms[0]["supervisorBuild"], "vmmhost 0.0.1");
  EXPECT_EQ(vms[0]["fix"], "restart the VM when convenient");
  EXPECT_EQ(vms[1]["status"], "notAnswering");
  EXPECT_EQ(vms[1]["supervisorBuild"], "");
  EXPECT_NE(vms[1]["detail"].get<std::string>().find("does not answer"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::cli
