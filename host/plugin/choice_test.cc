#include "host/plugin/choice.h"

#include "host/plugin/testing.h"

namespace vmmhost::plugin {
namespace {

BackendInfo backend(const char* name, Acceleration acceleration, std::uint32_t preference = 0) {
  BackendInfo info;
  info.name = name;
  info.usable = true;
  info.acceleration = acceleration;
  info.preference = preference;
  return info;
}

TEST(ChoiceTest, hardware_goesBeforeAllElse) {
  const auto choice =
      chooseBackend({backend("kvm", Acceleration::kHardware, 1), backend("qemu", Acceleration::kNone, 99)});
  EXPECT_EQ(choice.backend.name, "kvm");
  EXPECT_EQ(choice.reason, "kvm: chosen because it has hardware acceleration; qemu has no hardware acceleration");
}

TEST(ChoiceTest, translation_goesBeforeEmulation) {
  BackendInfo kvm = backend("kvm", Acceleration::kEmulated, 99);
  kvm.instructionsPerSecond = 1'310'000;
  const auto choice = chooseBackend({kvm, backend("qemu", Acceleration::kNone)});
  EXPECT_EQ(choice.backend.name, "qemu");
  EXPECT_EQ(choice.reason, "qemu: chosen because kvm is present, but emulating (1.3 MIPS)");
}

TEST(ChoiceTest, amongEquals_preferenceThenName) {
  EXPECT_EQ(
      chooseBackend({backend("a", Acceleration::kHardware, 1), backend("b", Acceleration::kHardware, 2)}).backend.name,
      "b");
  EXPECT_EQ(chooseBackend({backend("b", Acceleration::kNone, 2), backend("a", Acceleration::kNone, 2)}).backend.name,
            "a");
}

TEST(ChoiceTest, unusableAndBrokenOnes_areNeverChosen) {
  BackendInfo broken = backend("broken", Acceleration::kHardware);
  broken.error = Error(ErrorCode::kUnavailable, "backend broken: crashed with signal 6 while being probed");
  BackendInfo missing = backend("missing", Acceleration::kHardware);
  missing.usable = false;
  missing.summary = "no /dev/kvm";
  missing.hint = "modprobe kvm_intel";
  const auto choice = chooseBackend({broken, missing, backend("slow", Acceleration::kEmulated)});
  EXPECT_EQ(choice.backend.name, "slow");
  EXPECT_NE(choice.reason.find("signal 6"), std::string::npos);
  EXPECT_NE(choice.reason.find("missing is not usable (no /dev/kvm)"), std::string::npos);

  const Error error = testing::errorOf([&] { chooseBackend({broken, missing}); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_NE(error.message().find("signal 6"), std::string::npos);
  EXPECT_NE(error.message().find("no /dev/kvm"), std::string::npos);
  EXPECT_EQ(error.hint(), "modprobe kvm_intel");
}

TEST(ChoiceTest, withoutAnyBackend_saysSo) {
  EXPECT_EQ(testing::errorOf([] { chooseBackend({}); }).code(), ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace vmmhost::plugin
