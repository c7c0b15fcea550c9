#include "worker-kvm/virtio/pci_transport.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "worker-kvm/arch/x86_64/layout.h"
#include "worker-kvm/pci/root.h"
#include "worker-kvm/pci/test_vectors.h"
#include "worker-kvm/virtio/features.h"

namespace vmmhost::kvm::virtio {
namespace {

constexpr std::uint64_t kOffered = 0x30000005;

class FakeDevice final : public Device {
 public:
  std::uint16_t type() const noexcept override { return 2; }
  const char* name() const noexcept override { return "fake0"; }
  std::uint64_t features() const noexcept override { return kOffered; }
  std::span<const std::uint16_t> queueSizes() const noexcept override { return sizes; }
  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override {
    readBytes(config, offset, data);
  }
  void connect(Interrupts& to) override { interrupts = &to; }
  void activate(Activation given) noexcept override { activation = std::move(given); }
  void deactivate(std::function<void()> finished) noexcept override {
    activation.reset();
    done = std::move(finished);
    if (!slow) {
      done();
    }
  }

  std::vector<std::uint16_t> sizes{128, 64};
  std::array<std::uint8_t, 4> config{1, 2, 3, 4};
  Interrupts* interrupts = nullptr;
  std::optional<Activation> activation;
  std::function<void()> done;
  bool slow = false;
};

class RecordedDoorbells final : public devices::Doorbells {
 public:
  bool attach(devices::Space space, std::uint64_t address, int) noexcept override {
    return attached[space].insert(address).second;
  }
  void detach(devices::Space space, std::uint64_t address, int) noexcept override { attached[space].erase(address); }
  std::map<devices::Space, std::set<std::uint64_t>> attached;
};

class PciTransportTest : public ::testing::Test {
 protected:
  PciTransportTest() : memory_(std::vector<memory::Range>{{0, 1 << 20}}) {
    auto device = std::make_unique<FakeDevice>();
    device_ = device.get();
    root_.add(std::make_unique<PciTransport>(std::move(device),
                                             TransportContext{memory_, vectors_, doorbells_, calls_, wake_}));
    EXPECT_EQ(config(0x10) & 0xf, 4U) << "of 64 bits";
    base_ = config(0x10) & ~0xfU;
    portBase_ = config(0x18) & ~3U;
    setConfig(0x04, 7, 2);
    for (std::size_t at = config(0x34, 1); at != 0; at = config(at + 1, 1)) {
      if (config(at, 1) == 9 && config(at + 3, 1) == 2 && config(at + 4, 1) == 2) {
        portNotify_ = at;
        EXPECT_EQ(capabilities_.count(2), 0U) << "ports are the first choice";
      } else if (config(at, 1) == 9) {
        capabilities_[config(at + 3, 1)] = at;
      } else if (config(at, 1) == 0x11) {
        msix_ = at;
      }
    }
    common_ = base_ + config(capabilities_.at(1) + 8);
    notify_ = base_ + config(capabilities_.at(2) + 8);
    deviceConfig_ = base_ + config(capabilities_.at(4) + 8);
  }

  std::uint32_t read(std::uint64_t address, std::size_t bytes = 4) {
    std::uint32_t value = 0;
    EXPECT_TRUE(bus_.read(address, {reinterpret_cast<std::uint8_t*>(&value), bytes}));
    return value;
  }
  void write(std::uint64_t address, std::uint64_t value, std::size_t bytes = 4) {
    EXPECT_TRUE(bus_.write(address, {reinterpret_cast<const std::uint8_t*>(&value), bytes}));
  }
  std::uint32_t config(std::size_t offset, std::size_t bytes = 4) {
    return read(arch::kEcamStart + (1 << 15) + offset, bytes);
  }
  void setConfig(std::size_t offset, std::uint32_t value, std::size_t bytes = 4) {
    write(arch::kEcamStart + (1 << 15) + offset, value, bytes);
  }
  std::uint8_t status() { return static_cast<std::uint8_t>(read(common_ + 0x14, 1)); }
  void setStatus(std::uint8_t value) { write(common_ + 0x14, value, 1); }

  void agree(std::uint64_t features) {
    setStatus(1);
    setStatus(3);
    for (std::uint32_t half : {0u, 1u}) {
      write(common_ + 0x08, half);
      write(common_ + 0x0c, features >> half * 32);
    }
    setStatus(11);
  }
  void placeQueue(std::uint16_t index, std::uint64_t at) {
    write(common_ + 0x16, index, 2);
    write(common_ + 0x18, 16, 2);
    write(common_ + 0x1a, index + 1U, 2);
    write(common_ + 0x20, at, 8);
    write(common_ + 0x28, at + 0x1000, 8);
    write(common_ + 0x30, at + 0x2000, 8);
    write(common_ + 0x1c, 1, 2);
  }
  void start() {
    agree(kVersion1 | 5);
    placeQueue(0, 0x10000);
    placeQueue(1, 0x20000);
    setStatus(15);
  }

  memory::GuestMemory memory_;
  threads::Wake wake_;
  threads::ControlCalls calls_{wake_};
  pci::test::Vectors vectors_;
  RecordedDoorbells doorbells_;
  devices::PortBus ports_;
  devices::MmioBus bus_;
  static constexpr memory::Range kWindow64{std::uint64_t{1} << 36, std::uint64_t{1} << 32};
  pci::Root root_{ports_, bus_, kWindow64};
  FakeDevice* device_ = nullptr;
  std::map<std::uint32_t, std::size_t> capabilities_;
  std::size_t msix_ = 0;
  std::size_t portNotify_ = 0;
  std::uint32_t portBase_ = 0;
  std::uint64_t base_ = 0, common_ = 0, notify_ = 0, deviceConfig_ = 0;
};

TEST_F(PciTransportTest, identityAndCapabilities_areThoseOfTheSpecification) {
  EXPECT_EQ(config(0), 0x10421af4u);
  EXPECT_GE(config(8, 1), 1u);
  for (const std::uint32_t type : {1u, 2u, 3u, 4u, 5u}) {
    EXPECT_EQ(capabilities_.count(type), 1u) << type;
  }
  EXPECT_EQ(config(msix_ + 2, 2) & 0x7ff, 2u) << "three vectors: configuration and two queues";
  EXPECT_EQ(read(common_ + 0x12, 2), 2u);
  EXPECT_EQ(read(deviceConfig_), 0x04030201u);
}

TEST_F(PciTransportTest, handshake_activatesTheDeviceWithItsQueues) {
  EXPECT_EQ(read(common_ + 0x04), kOffered);
  write(common_, 1);
  EXPECT_EQ(read(common_ + 0x04), 1u) << "VIRTIO_F_VERSION_1";
  start();
  EXPECT_EQ(status(), 15);
  ASSERT_TRUE(device_->activation);
  EXPECT_EQ(device_->activation->features, kVersion1 | 5);
  ASSERT_EQ(device_->activation->queues.size(), 2u);
  ASSERT_TRUE(device_->activation->queues[1]);
  EXPECT_EQ(device_->activation->queues[1]->queue.size(), 16);
}

TEST_F(PciTransportTest, featuresThatAreNotOffered_areNotAccepted) {
  agree(kVersion1 | 2);
  EXPECT_EQ(status() & 8, 0);
  setStatus(15);
  EXPECT_FALSE(device_->activation) << "DRIVER_OK without FEATURES_OK";
}

TEST_F(PciTransportTest, driverWithoutVersion1_isNotAccepted) {
  agree(5);
  EXPECT_EQ(status() & 8, 0);
}

TEST_F(PciTransportTest, queueOutsideMemory_needsReset) {
  agree(kVersion1);
  placeQueue(0, 0x10000);
  placeQueue(1, 0xfffff000);
  setStatus(15);
  EXPECT_FALSE(device_->activation);
  EXPECT_NE(status() & 64, 0);
  EXPECT_NE(root_.takeFaults().at(0).find("fake0"), std::string::npos);
  EXPECT_TRUE(root_.takeFaults().empty());
  setStatus(0);
  EXPECT_EQ(status(), 0);
  start();
  EXPECT_TRUE(device_->activation);
}

TEST_F(PciTransportTest, runningQueue_isNeitherMovedNorResized) {
  start();
  write(common_ + 0x16, 0, 2);
  write(common_ + 0x18, 32, 2);
  write(common_ + 0x20, 0x50000);
  write(common_ + 0x1c, 0, 2);
  EXPECT_EQ(read(common_ + 0x18, 2), 16u);
  EXPECT_EQ(read(common_ + 0x20), 0x10000u);
  EXPECT_EQ(read(common_ + 0x1c, 2), 1u);
}

TEST_F(PciTransportTest, reset_readsZeroOnlyWhenTheDeviceIsQuiet) {
  start();
  device_->slow = true;
  setStatus(0);
  EXPECT_EQ(status(), 15);
  setStatus(15);
  EXPECT_EQ(status(), 15);
  device_->done();
  EXPECT_EQ(status(), 0);
  EXPECT_EQ(read(common_ + 0x1c, 2), 0u);
  write(common_ + 0x16, 0, 2);
  EXPECT_EQ(read(common_ + 0x18, 2), 128u);
}

TEST_F(PciTransportTest, interrupts_goToTheVectorsThatTheDriverChose) {
  start();
  write(common_ + 0x10, 0, 2);
  device_->interrupts->queueUsed(1);
  EXPECT_TRUE(vectors_.at(2).wasWritten());
  EXPECT_FALSE(vectors_.at(1).wasWritten());
  EXPECT_FALSE(vectors_.at(0).wasWritten());
  const auto generation = read(common_ + 0x15, 1);
  device_->interrupts->configChanged();
  EXPECT_TRUE(vectors_.at(0).wasWritten());
  EXPECT_NE(read(common_ + 0x15, 1), generation);
  write(common_ + 0x10, 77, 2);
  EXPECT_EQ(read(common_ + 0x10, 2), 0xffffu) << "no such vector";
}

TEST_F(PciTransportTest, queuesOfOneVector_areToldTogether) {
  start();
  EXPECT_FALSE(device_->interrupts->areToldTogether(0, 1));
  write(common_ + 0x16, 0, 2);
  write(common_ + 0x1a, 2, 2);
  EXPECT_TRUE(device_->interrupts->areToldTogether(0, 1));
  EXPECT_FALSE(device_->interrupts->areToldTogether(0, 2)) << "there is no such queue";
}

TEST_F(PciTransportTest, doorbells_followTheWindow) {
  const std::set<std::uint64_t> before{notify_, notify_ + 4};
  auto& attached = doorbells_.attached[devices::Space::kMemory];
  EXPECT_EQ(attached, before);
  setConfig(0x04, 0, 2);
  EXPECT_TRUE(attached.empty());
  setConfig(0x10, static_cast<std::uint32_t>(base_ + 0x100000));
  setConfig(0x04, 2, 2);
  EXPECT_EQ(attached, (std::set<std::uint64_t>{notify_ + 0x100000, notify_ + 0x100004}));
  setConfig(0x10, 0x100000);
  EXPECT_TRUE(attached.empty()) << "what is outside the bridge's windows is nobody's";
  setConfig(0x14, kWindow64.start >> 32);
  EXPECT_EQ(attached.size(), 2U);
  EXPECT_TRUE(attached.contains(kWindow64.start + 0x100000 + notify_ - base_));
  EXPECT_EQ(read(kWindow64.start + 0x100000 + deviceConfig_ - base_), 0x04030201U);
}

TEST_F(PciTransportTest, doorbellsOfPorts_followTheirOwnWindow) {
  auto& attached = doorbells_.attached[devices::Space::kPorts];
  EXPECT_EQ(config(portNotify_ + 8), 0U);
  EXPECT_EQ(config(portNotify_ + 12), 8U);
  EXPECT_EQ(config(portNotify_ + 16), 4U);
  EXPECT_EQ(attached, (std::set<std::uint64_t>{portBase_, portBase_ + 4}));
  setConfig(0x04, 2, 2);
  EXPECT_TRUE(attached.empty());
  setConfig(0x18, portBase_ + 0x1000);
  setConfig(0x04, 3, 2);
  EXPECT_EQ(attached, (std::set<std::uint64_t>{portBase_ + 0x1000, portBase_ + 0x1004}));
  EXPECT_EQ(doorbells_.attached[devices::Space::kMemory].size(), 2U);
  setConfig(0x18, 0x3f8);
  EXPECT_TRUE(attached.empty()) << "ports of others are not to be had";
}

TEST_F(PciTransportTest, portThatTheKernelDidNotTake_ringsAllTheSame) {
  start();
  const std::uint16_t queue = 1;
  EXPECT_TRUE(ports_.write(portBase_ + 4, {reinterpret_cast<const std::uint8_t*>(&queue), 2}));
  pollfd event{device_->activation->queues[1]->notified, POLLIN, 0};
  EXPECT_EQ(::poll(&event, 1, 0), 1);
  EXPECT_TRUE(ports_.write(portBase_ + 12, {reinterpret_cast<const std::uint8_t*>(&queue), 2})) << "nobody's";
}

TEST_F(PciTransportTest, configurationAccess_reachesThePorts) {
  start();
  const std::size_t at = capabilities_.at(5);
  setConfig(at + 4, 2, 1);
  setConfig(at + 8, 4);
  setConfig(at + 12, 2);
  setConfig(at + 16, 1, 2);
  pollfd event{device_->activation->queues[1]->notified, POLLIN, 0};
  EXPECT_EQ(::poll(&event, 1, 0), 1);
}

TEST_F(PciTransportTest, doorbellThatTheKernelDidNotTake_ringsAllTheSame) {
  start();
  write(notify_ + 4, 1, 2);
  pollfd event{device_->activation->queues[1]->notified, POLLIN, 0};
  EXPECT_EQ(::poll(&event, 1, 0), 1);
  write(notify_ + 0x1000, 1, 2);  // nobody's
}

TEST_F(PciTransportTest, configurationAccess_reachesTheWindow) {
  const std::size_t at = capabilities_.at(5);
  setConfig(at + 8, static_cast<std::uint32_t>(deviceConfig_ - base_));
  setConfig(at + 12, 4);
  EXPECT_EQ(config(at + 16), 0x04030201u);
  setConfig(at + 8, static_cast<std::uint32_t>(common_ - base_ + 0x14));
  setConfig(at + 12, 1);
  setConfig(at + 16, 1, 1);
  EXPECT_EQ(status(), 1);
  setConfig(at + 8, 0xfffffff0);
  setConfig(at + 12, 4);
  EXPECT_EQ(config(at + 16), 0u) << "nothing is there";
  EXPECT_EQ(status(), 1);
}

TEST_F(PciTransportTest, resetOfTheMachine_startsAnew) {
  start();
  root_.beginQuiet();
  EXPECT_TRUE(root_.isQuiet());
  EXPECT_FALSE(device_->activation);
  root_.reset();
  setConfig(0x04, 2, 2);
  EXPECT_EQ(status(), 0);
  start();
  EXPECT_TRUE(device_->activation);
}

TEST_F(PciTransportTest, anyAccess_isBorne) {
  for (std::uint64_t offset = 0; offset < 0x8000; offset += offset < 0x80 ? 1 : 61) {
    for (const std::size_t bytes : {1u, 2u, 4u, 8u}) {
      if (offset + bytes > 0x8000) {
        continue;
      }
      std::array<std::uint8_t, 8> data;
      data.fill(0xff);
      bus_.write(base_ + offset, std::span(data).first(bytes));
      bus_.read(base_ + offset, std::span(data).first(bytes));
    }
  }
  EXPECT_FALSE(device_->activation);
  setStatus(0);
  EXPECT_EQ(status(), 0);
  start();
  EXPECT_EQ(status(), 15);
  EXPECT_TRUE(device_->activation) << "a driver that does as it should finds a device";
}

}  // namespace
}  // namespace vmmhost::kvm::virtio
