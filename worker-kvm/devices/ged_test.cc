#include "worker-kvm/devices/ged.h"

#include <gtest/gtest.h>

#include <array>

#include "worker-kvm/acpi/tables.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::devices {
namespace {

class CountingLine final : public InterruptLine {
 public:
  void pulse() noexcept override { ++pulses; }
  int pulses = 0;
};

std::uint8_t readRegister(const PortBus& bus) {
  std::array<std::uint8_t, 1> value = {0xee};
  EXPECT_TRUE(bus.read(arch::kGedPort, value));
  return value[0];
}

TEST(Ged, pressedButton_raisesTheLineAndIsReadOnce) {
  PortBus bus;
  CountingLine line;
  Ged ged(bus, &line);
  EXPECT_EQ(readRegister(bus), 0);
  ged.pressPowerButton();
  EXPECT_EQ(line.pulses, 1);
  EXPECT_EQ(readRegister(bus), acpi::kPowerButtonEvent);
  EXPECT_EQ(readRegister(bus), 0);
}

TEST(Ged, eventsBeforeARead_areTogetherInIt) {
  PortBus bus;
  CountingLine line;
  Ged ged(bus, &line);
  ged.pressPowerButton();
  ged.pressPowerButton();
  ged.raise(0x80);
  EXPECT_EQ(line.pulses, 3);
  EXPECT_EQ(readRegister(bus), acpi::kPowerButtonEvent | 0x80);
}

TEST(Ged, writeOfTheGuest_changesNothing) {
  PortBus bus;
  Ged ged(bus, nullptr);
  ged.pressPowerButton();
  EXPECT_TRUE(bus.write(arch::kGedPort, std::array<std::uint8_t, 1>{0xff}));
  EXPECT_EQ(readRegister(bus), acpi::kPowerButtonEvent);
}

TEST(Ged, reset_forgetsEvents) {
  PortBus bus;
  Ged ged(bus, nullptr);
  ged.pressPowerButton();
  bus.resetDevices();
  EXPECT_EQ(readRegister(bus), 0);
}

}  // namespace
}  // namespace vmmhost::kvm::devices
