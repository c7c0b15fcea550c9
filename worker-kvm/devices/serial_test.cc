#include "worker-kvm/devices/serial.h"

#include <gtest/gtest.h>

#include <string>

namespace vmmhost::kvm::devices {
namespace {

constexpr std::uint16_t kPort = 0x3f8;

class SerialTest : public testing::Test, protected Serial::Peer, protected InterruptLine {
 protected:
  void serialNeedsAttention() noexcept override { ++attentions_; }
  void pulse() noexcept override { ++pulses_; }

  std::uint8_t in(std::uint16_t number) {
    std::array<std::uint8_t, 1> data{};
    EXPECT_TRUE(bus_.read(kPort + number, data));
    return data[0];
  }
  void out(std::uint16_t number, std::uint8_t value) {
    const std::array<std::uint8_t, 1> data = {value};
    EXPECT_TRUE(bus_.write(kPort + number, data));
  }
  std::size_t offer(const std::string& text) {
    return serial_.offerInput({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  }
  std::string take(std::size_t most = 10000) {
    std::string text(most, '\0');
    text.resize(serial_.takeOutput({reinterpret_cast<std::uint8_t*>(text.data()), text.size()}));
    return text;
  }

  PortBus bus_;
  int attentions_ = 0;
  int pulses_ = 0;
  Serial serial_{bus_, kPort, *this, this};
};

TEST_F(SerialTest, output_comesOutInOrderAndIsAnnouncedOnce) {
  for (const char character : std::string("hello")) {
    out(0, static_cast<std::uint8_t>(character));
  }
  EXPECT_EQ(attentions_, 1);
  EXPECT_EQ(in(5) & 0x60, 0x20);  // room for more, not all gone
  EXPECT_EQ(take(2), "he");
  EXPECT_EQ(take(), "llo");
  EXPECT_EQ(in(5) & 0x60, 0x60);
  out(0, 'x');
  EXPECT_EQ(attentions_, 2);
}

TEST_F(SerialTest, moderatedOutput_asksForAttentionWhenHalfOfTheRoomIsTaken) {
  out(0, 'a');
  EXPECT_EQ(attentions_, 1);
  EXPECT_EQ(take(), "a");
  serial_.setModerated(true);
  for (std::size_t written = 1; written < Serial::kOutputBytes / 2; ++written) {
    out(0, 'b');
  }
  EXPECT_EQ(attentions_, 1);
  out(0, 'b');
  EXPECT_EQ(attentions_, 2);
  EXPECT_EQ(take().size(), Serial::kOutputBytes / 2);
  serial_.setModerated(false);
  EXPECT_FALSE(serial_.hasOutput());
  out(0, 'c');
  EXPECT_EQ(attentions_, 3);
}

TEST_F(SerialTest, guestThatLooks_losesNothingWhenNobodyReads) {
  std::size_t written = 0;
  while ((in(5) & 0x20) != 0) {
    for (std::size_t byte = 0; byte < Serial::kFifoBytes; ++byte, ++written) {
      out(0, static_cast<std::uint8_t>('a' + written % 26));
    }
    ASSERT_LE(written, Serial::kOutputBytes);
  }
  const std::string text = take();
  ASSERT_EQ(text.size(), written);
  for (std::size_t index = 0; index < written; ++index) {
    ASSERT_EQ(text[index], static_cast<char>('a' + index % 26));
  }
  EXPECT_EQ(in(5) & 0x20, 0x20);
}

TEST_F(SerialTest, guestThatDoesNotLook_losesBytesAndNothingElse) {
  for (std::size_t index = 0; index < 3 * Serial::kOutputBytes; ++index) {
    out(0, 'x');
  }
  EXPECT_EQ(take().size(), Serial::kOutputBytes);
}

TEST_F(SerialTest, input_isTakenByTheFifoAndAsksForMoreWhenEmpty) {
  out(2, 0x01);
  EXPECT_EQ(offer(std::string(40, 'y')), Serial::kFifoBytes);
  for (std::size_t index = 0; index < Serial::kFifoBytes; ++index) {
    EXPECT_EQ(attentions_, 0);
    EXPECT_EQ(in(5) & 0x01, 0x01);
    EXPECT_EQ(in(0), 'y');
  }
  EXPECT_EQ(attentions_, 1);
  EXPECT_EQ(in(5) & 0x01, 0);
  EXPECT_EQ(in(0), 0);
  EXPECT_EQ(attentions_, 1);
}

TEST_F(SerialTest, withoutFifo_oneByteIsHeld) {
  EXPECT_EQ(offer("ab"), 1U);
  EXPECT_EQ(in(0), 'a');
  EXPECT_EQ(offer("b"), 1U);
  EXPECT_EQ(in(0), 'b');
}

TEST_F(SerialTest, fifoCanBeEmptiedAndIsTold) {
  out(2, 0x01);
  EXPECT_EQ(in(2), 0xc1);
  offer("abc");
  out(2, 0x03);
  EXPECT_EQ(in(5) & 0x01, 0);
  out(2, 0x00);
  EXPECT_EQ(in(2), 0x01);
}

TEST_F(SerialTest, receivedData_interruptsUntilItIsRead) {
  out(1, 0x01);
  EXPECT_EQ(pulses_, 0);
  offer("a");
  EXPECT_EQ(pulses_, 1);
  EXPECT_EQ(in(2), 0x04);
  EXPECT_EQ(in(2), 0x04);  // identification does not acknowledge it
  EXPECT_EQ(in(0), 'a');
  EXPECT_EQ(in(2), 0x01);
  offer("b");
  EXPECT_EQ(pulses_, 2);
}

TEST_F(SerialTest, emptyTransmitter_interruptsWhenEnabledAndAfterEachByte) {
  out(1, 0x02);
  EXPECT_EQ(pulses_, 1);
  EXPECT_EQ(in(2), 0x02);
  EXPECT_EQ(in(2), 0x01);  // identification acknowledges it
  out(0, 'a');
  EXPECT_EQ(pulses_, 2);
  EXPECT_EQ(in(2), 0x02);
  // Received data goes first.
  out(1, 0x03);
  out(0, 'b');
  offer("z");
  EXPECT_EQ(in(2), 0x04);
}

TEST_F(SerialTest, fullTransmitter_interruptsWhenThereIsRoomAgain) {
  out(1, 0x02);
  while ((in(5) & 0x20) != 0) {
    out(0, 'x');
  }
  in(2);
  const int before = pulses_;
  take();
  EXPECT_EQ(pulses_, before + 1);
  EXPECT_EQ(in(2), 0x02);
}

TEST_F(SerialTest, divisorLatch_hidesDataAndInterruptEnable) {
  out(1, 0x03);
  out(3, 0x83);
  out(0, 0x34);
  out(1, 0x12);
  EXPECT_EQ(in(0), 0x34);
  EXPECT_EQ(in(1), 0x12);
  EXPECT_EQ(take(), "");
  out(3, 0x03);
  EXPECT_EQ(in(1), 0x03);
  EXPECT_EQ(in(3), 0x03);
}

TEST_F(SerialTest, loopback_returnsOutputAndModemLines) {
  out(4, 0x1a);  // as Linux looks for a port: loopback, RTS, OUT2
  EXPECT_EQ(in(6) & 0xf0, 0x90);
  out(0, 'q');
  EXPECT_EQ(in(0), 'q');
  EXPECT_EQ(take(), "");
  EXPECT_EQ(offer("typed"), 0U);
  const int before = attentions_;
  out(4, 0x00);
  EXPECT_EQ(attentions_, before + 1);  // what was typed meanwhile may come now
  EXPECT_EQ(in(6) & 0xf0, 0xb0);
}

TEST_F(SerialTest, reset_returnsToPowerOnButKeepsOutput) {
  out(0, 'k');
  out(1, 0x0f);
  out(3, 0x03);
  out(7, 0x55);
  offer("lost");
  serial_.reset();
  EXPECT_EQ(in(1), 0);
  EXPECT_EQ(in(3), 0);
  EXPECT_EQ(in(7), 0);
  EXPECT_EQ(in(5) & 0x01, 0);
  EXPECT_EQ(take(), "k");
}

TEST_F(SerialTest, everyRegisterAndValue_isHarmless) {
  for (std::uint32_t value = 0; value < 256; ++value) {
    for (std::uint16_t number = 0; number < 8; ++number) {
      out(number, static_cast<std::uint8_t>(value));
      in(number);
      offer("abcdefghijklmnopqrstuvwxyz");
    }
    take();
  }
  const std::array<std::uint8_t, 8> wide{};
  EXPECT_TRUE(bus_.write(kPort, wide));
  EXPECT_FALSE(bus_.write(kPort + 1, wide));
  take();
  // After a reset it is as ever.
  serial_.reset();
  out(0, 'z');
  EXPECT_EQ(take(), "z");
  EXPECT_EQ(offer("i"), 1U);
  EXPECT_EQ(in(0), 'i');
  EXPECT_EQ(in(2), 0x01);
}

}  // namespace
}  // namespace vmmhost::kvm::devices
