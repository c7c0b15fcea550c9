#include "worker-kvm/virtio/console/control.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace vmmhost::kvm::virtio::console {
namespace {

class ConsoleConversationTest : public ::testing::Test {
 protected:
  std::optional<Conversation::Opened> hear(std::uint32_t port, std::uint16_t event, std::uint16_t value) {
    const ControlMessage message{port, event, value};
    std::array<std::uint8_t, sizeof message> bytes;
    std::memcpy(bytes.data(), &message, sizeof message);
    return conversation_.hear(bytes);
  }
  // What it says next, e.g. "1 name=1 'agent'".
  std::string say() {
    std::array<std::uint8_t, Conversation::kMaxMessageBytes> bytes;
    const std::size_t size = conversation_.say(bytes);
    if (size == 0) {
      return "";
    }
    ControlMessage message;
    std::memcpy(&message, bytes.data(), sizeof message);
    static constexpr const char* kEvents[] = {"ready", "add", "remove", "ready", "console", "resize", "open", "name"};
    std::string text =
        std::to_string(message.port) + " " + kEvents[message.event] + "=" + std::to_string(message.value);
    if (message.event == kPortName) {
      text += " " + std::string(bytes.begin() + sizeof message, bytes.begin() + static_cast<std::ptrdiff_t>(size));
    } else if (message.event == kResize) {
      std::uint16_t parts[2];
      std::memcpy(parts, bytes.data() + sizeof message, sizeof parts);
      text += " " + std::to_string(parts[0]) + "," + std::to_string(parts[1]);
    }
    return text;
  }

  Conversation conversation_{{{"", true}, {"agent", false}}};
};

TEST_F(ConsoleConversationTest, goesAsTheSpecificationSays) {
  EXPECT_FALSE(conversation_.hasMore());
  hear(0, kDeviceReady, 1);
  EXPECT_EQ(say(), "0 add=1");
  EXPECT_EQ(say(), "1 add=1");
  EXPECT_FALSE(conversation_.hasMore());
  conversation_.setSize(0, {80, 25});
  EXPECT_FALSE(conversation_.hasMore()) << "the driver does not have the port yet";
  hear(0, kPortReady, 1);
  EXPECT_EQ(say(), "0 console=1");
  EXPECT_EQ(say(), "0 resize=1 25,80");
  EXPECT_EQ(say(), "0 open=1");
  hear(1, kPortReady, 1);
  EXPECT_EQ(say(), "1 name=1 agent");
  EXPECT_EQ(say(), "1 open=1");
  conversation_.setSize(0, {80, 25});
  conversation_.setSize(1, {80, 25});  // no console
  EXPECT_EQ(say(), "");
  conversation_.setSize(0, {100, 30});
  EXPECT_EQ(say(), "0 resize=1 30,100");
  conversation_.setHostOpen(1, false);
  EXPECT_EQ(say(), "1 open=0");
}

TEST_F(ConsoleConversationTest, guestThatOpensAndCloses_isHeardOnce) {
  const auto opened = hear(1, kPortOpen, 1);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->port, 1u);
  EXPECT_TRUE(opened->open);
  EXPECT_FALSE(hear(1, kPortOpen, 1));
  EXPECT_TRUE(hear(1, kPortOpen, 0));
  EXPECT_TRUE(hear(1, kPortOpen, 1));
  const auto givenUp = hear(1, kPortReady, 0);
  ASSERT_TRUE(givenUp);
  EXPECT_FALSE(givenUp->open);
}

TEST_F(ConsoleConversationTest, driverThatAsksAgainAndAgain_isAnsweredOnce) {
  for (int i = 0; i < 100000; ++i) {
    hear(0, kDeviceReady, 1);
    hear(1, kPortReady, 1);
  }
  int said = 0;
  while (!say().empty()) {
    ++said;
  }
  EXPECT_EQ(said, 3);  // port 0 is there, name and end of port 1, which was asked for since
}

TEST_F(ConsoleConversationTest, whatMakesNoSense_isNotHeard) {
  EXPECT_FALSE(hear(2, kPortOpen, 1));
  EXPECT_FALSE(hear(0xffffffff, kPortReady, 1));
  EXPECT_FALSE(hear(0, 999, 1));
  EXPECT_FALSE(hear(0, kDeviceReady, 7));
  const std::array<std::uint8_t, 7> shortMessage{};
  EXPECT_FALSE(conversation_.hear(shortMessage));
  EXPECT_FALSE(conversation_.hear({}));
  EXPECT_EQ(say(), "");
}

TEST_F(ConsoleConversationTest, driverThatComesAnew_isToldAnew) {
  hear(0, kDeviceReady, 1);
  hear(0, kPortReady, 1);
  hear(0, kPortOpen, 1);
  conversation_.reset();
  EXPECT_EQ(say(), "");
  conversation_.setSize(0, {80, 25});
  EXPECT_EQ(say(), "");
  EXPECT_TRUE(hear(0, kPortOpen, 1)) << "it was forgotten";
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::console
