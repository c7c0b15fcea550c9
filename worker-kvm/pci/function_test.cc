#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/refusal.h"
#include "vmmhost/error.h"
#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/pci/root.h"

namespace vmmhost::kvm::pci {
namespace {

// Answers with the offset that was asked for.
class Echo final : public devices::BusDevice {
 public:
  void read(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override {
    std::memset(data.data(), static_cast<int>(offset), data.size());
  }
  void write(std::uint64_t offset, std::span<const std::uint8_t>) noexcept override { lastWrite = offset; }
  void reset() override {}
  std::uint64_t lastWrite = ~std::uint64_t{0};
};

class TestFunction final : public Function {
 public:
  TestFunction(std::uint16_t device, std::uint32_t bytes, BaseKind kind = BaseKind::kMemory32)
      : Function({.vendor = 0x1af4, .device = device, .classCode = 0x020000}) {
    addBaseAddress(0, bytes, echo, kind);
    capability = addCapability(9, std::array<std::uint8_t, 3>{5, 6, 7});
  }
  void decodingChanged() noexcept override { ++changes; }
  Echo echo;
  std::size_t capability = 0;
  unsigned changes = 0;
};

class RootTest : public ::testing::Test {
 protected:
  RootTest() {
    auto function = std::make_unique<TestFunction>(0x1041, 0x4000);
    first_ = function.get();
    root_.add(std::move(function));
  }
  std::uint64_t ecam(unsigned device, unsigned offset) { return arch::kEcamStart + (device << 15) + offset; }
  std::uint32_t readMemory(std::uint64_t address, std::size_t bytes = 4) {
    std::uint32_t value = 0;
    EXPECT_TRUE(memory_.read(address, {reinterpret_cast<std::uint8_t*>(&value), bytes}));
    return value;
  }
  void writeMemory(std::uint64_t address, std::uint32_t value, std::size_t bytes = 4) {
    memory_.write(address, {reinterpret_cast<const std::uint8_t*>(&value), bytes});
  }
  void switchOn(unsigned device) { writeMemory(ecam(device, 4), 2, 2); }

  devices::PortBus ports_;
  devices::MmioBus memory_;
  static constexpr memory::Range kWindow64{std::uint64_t{1} << 36, std::uint64_t{1} << 30};
  Root root_{ports_, memory_, kWindow64};
  TestFunction* first_;
};

TEST_F(RootTest, identities_areReadBothWays) {
  EXPECT_EQ(readMemory(ecam(1, 0)), 0x10411af4u);
  EXPECT_EQ(readMemory(ecam(2, 0)), 0xffffffffu) << "nobody there";
  EXPECT_EQ(readMemory(ecam(1, 0) + 0x1000), 0xffffffffu) << "function 1";
  EXPECT_EQ(readMemory(ecam(1, 0x100)), 0u) << "no extended capabilities";
  std::uint32_t value = 0x80000000 | 1 << 11;
  ports_.write(0xcf8, {reinterpret_cast<std::uint8_t*>(&value), 4});
  ports_.read(0xcfc, {reinterpret_cast<std::uint8_t*>(&value), 4});
  EXPECT_EQ(value, 0x10411af4u);
  std::uint16_t half = 0;
  ports_.read(0xcfe, {reinterpret_cast<std::uint8_t*>(&half), 2});
  EXPECT_EQ(half, 0x1041u);
}

TEST_F(RootTest, capabilities_areAList) {
  EXPECT_NE(readMemory(ecam(1, 6), 2) & 0x10, 0u);
  EXPECT_EQ(readMemory(ecam(1, 0x34), 1), first_->capability);
  EXPECT_EQ(readMemory(ecam(1, static_cast<unsigned>(first_->capability))), 0x06050009u);
}

TEST_F(RootTest, baseAddress_tellsItsSizeAndIsMoved) {
  const std::uint32_t at = readMemory(ecam(1, 0x10));
  EXPECT_EQ(at % 0x4000, 0u);
  EXPECT_EQ(readMemory(at + 5, 1), 0xffu) << "memory space is off";
  switchOn(1);
  EXPECT_EQ(readMemory(at + 5, 1), 5u);
  EXPECT_EQ(first_->changes, 1u);
  writeMemory(ecam(1, 0x10), 0xffffffff);
  EXPECT_EQ(readMemory(ecam(1, 0x10)), 0xffffc000u);
  writeMemory(ecam(1, 0x10), at + 0x10000 + 7);
  EXPECT_EQ(readMemory(ecam(1, 0x10)), at + 0x10000);
  EXPECT_EQ(readMemory(at + 5, 1), 0xffu);
  EXPECT_EQ(readMemory(at + 0x10000 + 9, 1), 9u);
}

TEST_F(RootTest, addressesOutsideTheWindow_answerNothing) {
  switchOn(1);
  for (const std::uint32_t address : {0u, 0x100000u, 0xfee00000u, 0xffffc000u}) {
    writeMemory(ecam(1, 0x10), address);
    std::array<std::uint8_t, 4> data{};
    EXPECT_TRUE(!memory_.read(address, data) || data[0] == 0xff) << address;
  }
}

TEST_F(RootTest, functionsOnTopOfEachOther_lowerNumberAnswers) {
  auto other = std::make_unique<TestFunction>(0x1042, 0x4000);
  TestFunction* const second = other.get();
  root_.add(std::move(other));
  switchOn(1);
  switchOn(2);
  const std::uint32_t at = readMemory(ecam(1, 0x10));
  EXPECT_NE(readMemory(ecam(2, 0x10)), at);
  writeMemory(ecam(2, 0x10), at);
  writeMemory(at + 3, 0, 1);
  EXPECT_EQ(first_->echo.lastWrite, 3u);
  EXPECT_NE(second->echo.lastWrite, 3u);
}

TEST_F(RootTest, reset_bringsConfigurationBack) {
  const std::uint32_t at = readMemory(ecam(1, 0x10));
  switchOn(1);
  writeMemory(ecam(1, 0x10), at + 0x40000);
  writeMemory(ecam(1, 0x3c), 0x55, 1);
  root_.reset();
  EXPECT_EQ(readMemory(ecam(1, 0x10)), at);
  EXPECT_EQ(readMemory(ecam(1, 4), 2), 0u);
  EXPECT_EQ(readMemory(ecam(1, 0x3c), 1), 0u);
  EXPECT_EQ(readMemory(at, 1), 0xffu);
}

TEST_F(RootTest, readOnlyRegisters_stay) {
  writeMemory(ecam(1, 0), 0);
  writeMemory(ecam(1, 8), 0xffffffff);
  EXPECT_EQ(readMemory(ecam(1, 0)), 0x10411af4u);
  EXPECT_EQ(readMemory(ecam(1, 8)), 0x02000000u);
}

TEST_F(RootTest, baseAddressOf64Bits_isMovedBetweenWindows) {
  root_.add(std::make_unique<TestFunction>(0x1042, 0x4000, BaseKind::kMemory64));
  const std::uint32_t at = readMemory(ecam(2, 0x10));
  EXPECT_EQ(at & 0xf, 4u);
  EXPECT_EQ(readMemory(ecam(2, 0x14)), 0u) << "at first where every mode of a processor reaches it";
  switchOn(2);
  EXPECT_EQ(readMemory((at & ~0xfu) + 7, 1), 7u);
  writeMemory(ecam(2, 0x10), 0xffffffff);
  writeMemory(ecam(2, 0x14), 0xffffffff);
  EXPECT_EQ(readMemory(ecam(2, 0x10)), 0xffffc004u);
  EXPECT_EQ(readMemory(ecam(2, 0x14)), 0xffffffffu);
  writeMemory(ecam(2, 0x10), 0x3fffc000);
  writeMemory(ecam(2, 0x14), 0x10);
  EXPECT_EQ(readMemory(kWindow64.end() - 0x4000 + 9, 1), 9u);
  EXPECT_EQ(readMemory((at & ~0xfu) + 7, 1), 0xffu);
  writeMemory(ecam(2, 0x14), 0x11);
  std::array<std::uint8_t, 1> data{};
  EXPECT_FALSE(memory_.read(kWindow64.start + 0x1'3fff'c000, data)) << "behind the window";
  root_.reset();
  EXPECT_EQ(readMemory(ecam(2, 0x10)), at);
  EXPECT_EQ(readMemory(ecam(2, 0x14)), 0u);
}

TEST_F(RootTest, baseAddressOfPorts_isDecodedInTheirWindowOnly) {
  root_.add(std::make_unique<TestFunction>(0x1042, 0x20, BaseKind::kPorts));
  const auto port = [this](std::uint32_t at) {
    std::uint8_t value = 0;
    ports_.read(at, {&value, 1});
    return value;
  };
  const std::uint32_t at = readMemory(ecam(2, 0x10));
  EXPECT_EQ(at & 3, 1u);
  EXPECT_EQ(port((at & ~3u) + 5), 0xffu);
  switchOn(2);
  EXPECT_EQ(port((at & ~3u) + 5), 0xffu) << "memory space is not I/O space";
  writeMemory(ecam(2, 4), 1, 2);
  EXPECT_EQ(port((at & ~3u) + 5), 5u);
  writeMemory(ecam(2, 0x10), 0xfffffff0);
  EXPECT_EQ(readMemory(ecam(2, 0x10)), 0xffffffe1u);
  writeMemory(ecam(2, 0x10), 0xffe0);
  EXPECT_EQ(port(0xffe6), 6u);
  writeMemory(ecam(2, 0x10), 0x600);
  EXPECT_EQ(port(0x606), 0xffu);
}

TEST_F(RootTest, moreThanTheBusHolds_isRefused) {
  for (unsigned i = 2; i < kMaxFunctions; ++i) {
    root_.add(std::make_unique<TestFunction>(0x1041, 0x1000));
  }
  tests::expectRefusal("a VM has room for " + std::to_string(kMaxFunctions - 1) + " PCI devices",
                       [&] { root_.add(std::make_unique<TestFunction>(0x1041, 0x1000)); });
}

}  // namespace
}  // namespace vmmhost::kvm::pci
