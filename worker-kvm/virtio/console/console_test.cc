#include "worker-kvm/virtio/console/console.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <thread>

#include "worker-kvm/virtio/test_driver.h"

namespace vmmhost::kvm::virtio::console {
namespace {

using virtio::test::Driver;

constexpr std::uint64_t kAgreed = kSize | kEmergWrite | kIndirectDesc | kEventIdx;
constexpr std::uint64_t kInput = 0;  // data offsets
constexpr std::uint64_t kOutput = 8 << 20;
constexpr std::uint64_t kControlIn = 16 << 20;
constexpr std::uint64_t kControlOut = 17 << 20;

class ConsoleTest : public ::testing::Test {
 protected:
  ConsoleTest() { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
  ~ConsoleTest() override { console_.reset(); }

  void make(std::vector<Conversation::PortNature> ports = {{"", true}}) {
    std::vector<Fd> sockets;
    for (std::size_t i = 0; i < ports.size(); ++i) {
      int ends[2];
      ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
      sockets.emplace_back(ends[0]);
      host_.emplace_back(ends[1]);
    }
    driver_ = std::make_unique<Driver>(ports.size() == 1 ? 2 : 2 * ports.size() + 2);
    auto rules = Console::rulesFor(sockets);
    for (const int descriptor : driver_->interrupts().descriptors()) {
      rules.push_back(confine::callOn(__NR_write, descriptor));
    }
    thread_ = std::make_unique<io::EventThread>("test", rules);
    ConsoleOptions options;
    options.ports = std::move(ports);
    options.onGuestOpen = [this](std::size_t port, bool open) { opened_ += std::to_string(port) + (open ? "+" : "-"); };
    console_ = std::make_unique<Console>(*thread_, std::move(options), std::move(sockets));
    console_->connect(driver_->interrupts());
  }
  void start(std::uint64_t features = kAgreed) { driver_->start(*console_, features, 64); }

  // The guest says this on a port, in one chain of so many pieces.
  void say(const std::string& text, std::size_t port = 0, std::size_t pieces = 1) {
    const std::uint64_t at = kOutput + (outputs_++ % 64) * 65536;
    std::memcpy(driver_->data(at, text.size()).data(), text.data(), text.size());
    std::vector<virtio::test::Part> parts;
    for (std::size_t piece = 0; piece < pieces; ++piece) {
      const std::size_t from = text.size() * piece / pieces;
      const std::size_t to = text.size() * (piece + 1) / pieces;
      parts.push_back({Driver::kData + at + from, static_cast<std::uint32_t>(to - from), false});
    }
    driver_->queue(transmitQueueOf(port)).offer(parts);
    driver_->queue(transmitQueueOf(port)).notifyIfWanted();
  }
  // What the host has got, once it is so much.
  std::string heard(std::size_t bytes, std::size_t port = 0) {
    std::string text;
    while (text.size() < bytes) {
      pollfd waiting{host_[port].get(), POLLIN, 0};
      char buffer[4096];
      const ssize_t got = ::poll(&waiting, 1, 10000) == 1 ? ::recv(host_[port].get(), buffer, sizeof buffer, 0) : -1;
      if (got <= 0) {
        ADD_FAILURE() << "nothing more after " << text.size() << " bytes";
        break;
      }
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }
  void type(const std::string& text, std::size_t port = 0) {
    ASSERT_EQ(::send(host_[port].get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  // A buffer for input; what is in it once it was used.
  void offerInput(std::uint32_t bytes, std::size_t port = 0) {
    driver_->queue(receiveQueueOf(port)).offer({{Driver::kData + kInput + port * 65536, bytes, true}});
    driver_->queue(receiveQueueOf(port)).notifyIfWanted();
  }
  std::string takeInput(std::size_t port = 0) {
    const auto used = driver_->queue(receiveQueueOf(port)).nextUsed(driver_->interrupts());
    const auto data = driver_->data(kInput + port * 65536, used.bytes);
    return {data.begin(), data.end()};
  }

  void tell(std::uint32_t port, std::uint16_t event, std::uint16_t value) {
    const ControlMessage message{port, event, value};
    std::memcpy(driver_->data(kControlOut, sizeof message).data(), &message, sizeof message);
    driver_->queue(kControlTransmitQueue).offer({{Driver::kData + kControlOut, sizeof message, false}});
    driver_->queue(kControlTransmitQueue).notifyIfWanted();
    driver_->queue(kControlTransmitQueue).nextUsed(driver_->interrupts());
  }
  void offerControl(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      driver_->queue(kControlReceiveQueue).offer({{Driver::kData + kControlIn + (controls_++ % 64) * 256, 256, true}});
    }
    driver_->queue(kControlReceiveQueue).notifyIfWanted();
  }
  struct Told {
    ControlMessage message;
    std::string rest;
    bool operator==(const Told& other) const {
      return message.port == other.message.port && message.event == other.message.event &&
             message.value == other.message.value && rest == other.rest;
    }
  };
  Told told() {
    const auto used = driver_->queue(kControlReceiveQueue).nextUsed(driver_->interrupts());
    const auto data = driver_->data(kControlIn + (toldCount_++ % 64) * 256, used.bytes);
    Told told;
    if (data.size() < sizeof told.message) {
      ADD_FAILURE() << "no message";
      return told;
    }
    std::memcpy(&told.message, data.data(), sizeof told.message);
    told.rest.assign(data.begin() + sizeof told.message, data.end());
    return told;
  }
  void expectTold(std::uint32_t port, std::uint16_t event, std::uint16_t value, const std::string& rest = "") {
    EXPECT_EQ(told(), (Told{{port, event, value}, rest})) << event;
  }

  std::vector<Fd> host_;
  std::string opened_;  // the thread's
  std::unique_ptr<Driver> driver_;
  std::unique_ptr<io::EventThread> thread_;
  std::unique_ptr<Console> console_;
  std::uint64_t outputs_ = 0, controls_ = 0, toldCount_ = 0;
};

std::string pattern(std::size_t bytes) {
  std::string text(bytes, ' ');
  for (std::size_t i = 0; i < bytes; ++i) {
    text[i] = static_cast<char>(i * 31 + i / 253);
  }
  return text;
}

TEST_F(ConsoleTest, singlePort_carriesBytesBothWays) {
  make();
  EXPECT_EQ(console_->features() & kMultiport, 0u);
  EXPECT_EQ(console_->queueSizes().size(), 2u);
  start();
  say("hello, ");
  say("host", 0, 3);
  EXPECT_EQ(heard(11), "hello, host");
  offerInput(100);
  type("hello, guest");
  EXPECT_EQ(takeInput(), "hello, guest");
  driver_->stop();
}

TEST_F(ConsoleTest, outputThatTheHostDoesNotTakeYet_isNotLost) {
  make();
  start();
  const std::string all = pattern(20 * 65536);
  for (std::size_t i = 0; i < 20; ++i) {
    say(all.substr(i * 65536, 65536), 0, 3);
  }
  EXPECT_LT(driver_->queue(1).usedIndex(), 20) << "a socket does not hold so much";
  EXPECT_TRUE(heard(all.size()) == all);
  for (int i = 0; i < 20; ++i) {
    driver_->queue(1).nextUsed(driver_->interrupts());
  }
  driver_->stop();
}

TEST_F(ConsoleTest, inputForWhichThereAreNoBuffersYet_isNotLost) {
  make();
  start();
  const std::string all = pattern(100000);
  type(all);
  std::string got;
  while (got.size() < all.size()) {
    offerInput(777);
    got += takeInput();
  }
  EXPECT_TRUE(got == all);
  driver_->stop();
}

TEST_F(ConsoleTest, emptyChains_areUsedAndMeanNothing) {
  make();
  start();
  driver_->queue(1).offer({{Driver::kData, 64, true}});
  driver_->queue(1).notifyIfWanted();
  driver_->queue(1).nextUsed(driver_->interrupts());
  driver_->queue(0).offer({{Driver::kData, 64, false}});
  driver_->queue(0).notifyIfWanted();
  type("x");
  EXPECT_EQ(driver_->queue(0).nextUsed(driver_->interrupts()).bytes, 0u);
  offerInput(10);
  EXPECT_EQ(takeInput(), "x") << "the port is still open";
  driver_->stop();
}

TEST_F(ConsoleTest, size_isInTheConfiguration_andItsChangeIsTold) {
  make();
  start();
  console_->setSize(0, {132, 43});
  EXPECT_TRUE(driver_->interrupts().waitForConfig(1));
  std::vector<std::uint8_t> config(12);
  console_->readConfig(0, config);
  EXPECT_EQ(config, (std::vector<std::uint8_t>{132, 0, 43, 0, 1, 0, 0, 0, 0, 0, 0, 0}));
  console_->setSize(0, {132, 43});
  console_->setSize(9, {1, 1});
  io::runOn(*thread_, [] {});
  EXPECT_EQ(driver_->interrupts().configChanges(), 1u);
  driver_->stop();
}

TEST_F(ConsoleTest, severalPorts_areAnnouncedAndCarryBytes) {
  make({{"", true}, {"agent", false}});
  start(kAgreed | kMultiport);
  console_->setSize(0, {80, 25});
  offerControl(16);
  tell(0, kDeviceReady, 1);
  expectTold(0, kDeviceAdd, 1);
  expectTold(1, kDeviceAdd, 1);
  tell(0, kPortReady, 1);
  expectTold(0, kConsolePort, 1);
  expectTold(0, kResize, 1, std::string("\x19\0\x50\0", 4));
  expectTold(0, kPortOpen, 1);
  tell(1, kPortReady, 1);
  expectTold(1, kPortName, 1, "agent");
  expectTold(1, kPortOpen, 1);
  tell(0, kPortOpen, 1);
  tell(1, kPortOpen, 1);
  std::string opened;
  io::runOn(*thread_, [&] { opened = opened_; });
  EXPECT_EQ(opened, "0+1+");
  say("from port 1", 1);
  EXPECT_EQ(heard(11, 1), "from port 1");
  offerInput(100, 1);
  type("to port 1", 1);
  EXPECT_EQ(takeInput(1), "to port 1");
  console_->setSize(0, {100, 30});
  expectTold(0, kResize, 1, std::string("\x1e\0\x64\0", 4));
  EXPECT_EQ(driver_->interrupts().configChanges(), 0u);
  driver_->stop();
}

TEST_F(ConsoleTest, input_waitsUntilTheGuestOpensThePort) {
  make({{"", true}, {"agent", false}});
  start(kAgreed | kMultiport);
  offerControl(16);
  offerInput(100, 1);
  type("early", 1);
  tell(1, kPortReady, 1);
  EXPECT_FALSE(driver_->queue(receiveQueueOf(1)).hasUsed());
  tell(1, kPortOpen, 1);
  EXPECT_EQ(takeInput(1), "early");
  tell(1, kPortOpen, 0);
  offerInput(100, 1);
  type("later", 1);
  io::runOn(*thread_, [] {});
  EXPECT_FALSE(driver_->queue(receiveQueueOf(1)).hasUsed());
  tell(1, kPortOpen, 1);
  EXPECT_EQ(takeInput(1), "later");
  driver_->stop();
}

TEST_F(ConsoleTest, driverWithoutMultiport_hasPortZero) {
  make({{"", true}, {"agent", false}});
  start(kAgreed);
  say("boot");
  EXPECT_EQ(heard(4), "boot");
  offerInput(100);
  type("x");
  EXPECT_EQ(takeInput(), "x");
  driver_->stop();
}

TEST_F(ConsoleTest, portThatTheHostCloses_isToldAndTakesOutputNowhere) {
  make({{"", true}, {"agent", false}});
  start(kAgreed | kMultiport);
  offerControl(16);
  tell(1, kPortReady, 1);
  expectTold(1, kPortName, 1, "agent");
  expectTold(1, kPortOpen, 1);
  tell(1, kPortOpen, 1);
  offerInput(100, 1);
  type("last words", 1);
  EXPECT_EQ(takeInput(1), "last words");
  offerInput(100, 1);
  host_[1].reset();
  expectTold(1, kPortOpen, 0);
  say("to nobody", 1);
  driver_->queue(transmitQueueOf(1)).nextUsed(driver_->interrupts());
  say("still here");
  EXPECT_EQ(heard(10), "still here");
  driver_->stop();
}

TEST_F(ConsoleTest, emergencyBytes_arriveBeforeThereIsADriver_andWithOne) {
  make();
  const auto cry = [&](char c) {
    const std::array<std::uint8_t, 4> value{static_cast<std::uint8_t>(c), 1, 2, 3};
    console_->writeConfig(kEmergencyWriteOffset, value);
  };
  for (const char c : std::string("panic")) {
    cry(c);
  }
  EXPECT_EQ(heard(5), "panic");
  start();
  say("out");
  EXPECT_EQ(heard(3), "out");
  cry('!');
  EXPECT_EQ(heard(1), "!");
  const std::array<std::uint8_t, 4> other{'x', 0, 0, 0};
  console_->writeConfig(0, other);
  console_->writeConfig(4, other);
  console_->writeConfig(9, other);
  driver_->stop();
  cry('?');
  EXPECT_EQ(heard(1), "?");
}

TEST_F(ConsoleTest, emergencyBytesForAFullSocket_areBounded_andWait) {
  make();
  for (int i = 0; i < 100000; ++i) {
    const std::array<std::uint8_t, 1> value{'e'};
    console_->writeConfig(kEmergencyWriteOffset, value);
  }
  io::runOn(*thread_, [] {});
  std::string got = heard(1);
  while (true) {
    pollfd waiting{host_[0].get(), POLLIN, 0};
    char buffer[4096];
    if (::poll(&waiting, 1, 0) != 1) {
      break;
    }
    got.append(buffer, static_cast<std::size_t>(::recv(host_[0].get(), buffer, sizeof buffer, 0)));
    io::runOn(*thread_, [] {});
  }
  EXPECT_GT(got.size(), 200u);
  // What a socket holds of single bytes, and the two places where at most 256 wait.
  EXPECT_LT(got.size(), 4000u) << "of 100,000";
  EXPECT_EQ(got.find_first_not_of('e'), std::string::npos);
  start();
  say("fine");
  // The device's thread may have had some of them left.
  std::string rest = heard(4);
  for (std::string more = rest; !more.empty() && !rest.ends_with("fine"); rest += more) {
    more = heard(1);
  }
  EXPECT_EQ(rest.find_first_not_of('e'), rest.size() - 4);
  EXPECT_TRUE(rest.ends_with("fine")) << rest;
  driver_->stop();
}

TEST_F(ConsoleTest, controlStorm_withoutBuffersForAnswers_harmsNobody) {
  make({{"", true}, {"agent", false}});
  start(kAgreed | kMultiport);
  for (std::uint16_t i = 0; i < 2000; ++i) {
    tell(i % 3U, kPortReady, i % 2U);
    tell(0, kDeviceReady, 1);
    tell(0xffffffffU - i, i, i);
  }
  driver_->queue(kControlTransmitQueue).offer({{Driver::kData + kControlOut, 3, false}});
  driver_->queue(kControlTransmitQueue).offer({{Driver::kData + kControlOut, 8, true}});
  driver_->queue(kControlTransmitQueue).notifyIfWanted();
  driver_->queue(kControlTransmitQueue).nextUsed(driver_->interrupts());
  driver_->queue(kControlTransmitQueue).nextUsed(driver_->interrupts());
  offerControl(16);
  expectTold(0, kDeviceAdd, 1);
  say("alive");
  EXPECT_EQ(heard(5), "alive");
  EXPECT_EQ(driver_->interrupts().brokenReason(), "");
  driver_->stop();
}

TEST_F(ConsoleTest, loopInAQueue_breaksTheDevice_untilItIsReset) {
  make();
  start();
  auto& queue = driver_->queue(1);
  queue.put<std::uint64_t>(queue.layout().descriptorTable, Driver::kData);
  queue.put<std::uint32_t>(queue.layout().descriptorTable + 8, 64);
  queue.put<std::uint16_t>(queue.layout().descriptorTable + 12, 1);
  queue.put<std::uint16_t>(queue.layout().descriptorTable + 14, 0);
  queue.offerHead(0);
  queue.notifyIfWanted();
  EXPECT_TRUE(driver_->interrupts().waitForBroken());
  driver_->stop();
  start();
  say("again");
  EXPECT_EQ(heard(5), "again");
  driver_->stop();
}

TEST_F(ConsoleTest, device_stopsAndStartsUnderLoad_andGoesWhileActive) {
  make({{"", true}, {"agent", false}});
  std::atomic<bool> ends = false;
  std::atomic<unsigned> rounds = 0;
  std::thread load([&] {
    const std::string text(1000, 'x');
    char buffer[4096];
    for (; !ends; ++rounds) {
      for (const Fd& socket : host_) {
        [[maybe_unused]] ssize_t moved = ::send(socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        moved = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      }
    }
  });
  for (int round = 0; round < 50; ++round) {
    start(kAgreed | kMultiport);
    offerControl(16);
    tell(0, kPortOpen, 1);
    tell(1, kPortOpen, 1);
    for (std::size_t i = 0; i < 20; ++i) {
      say(std::string(5000, 'y'), i % 2);
      offerInput(100, i % 2);
    }
    if (round == 49) {
      console_.reset();
      break;
    }
    driver_->stop();
    const auto used = driver_->queue(0).usedIndex();
    const unsigned before = rounds;
    while (rounds < before + 3) {  // while the host sends and reads
      std::this_thread::yield();
    }
    EXPECT_EQ(driver_->queue(0).usedIndex(), used) << "memory is left alone";
  }
  ends = true;
  load.join();
}

TEST_F(ConsoleTest, portsAndSocketsThatDoNotMatch_areRefused) {
  make();
  for (const std::size_t sockets : {2u, 0u}) {
    try {
      const Console console(*thread_, {}, std::vector<Fd>(sockets));
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(error.message().find(": " + std::to_string(sockets) + " ports"), std::string::npos) << error.message();
    }
  }
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::console
