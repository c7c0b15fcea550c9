#include "host/plugin/probe_result.h"

#include <random>

#include "host/plugin/host_api.h"
#include "host/plugin/testing.h"

namespace vmmhost::plugin {
namespace {

ProbeResult sample() {
  ProbeResult result;
  result.info.name = "kvm";
  result.info.version = "1.0";
  result.info.description = "d";
  result.info.preference = 100;
  result.info.usable = true;
  result.info.acceleration = Acceleration::kEmulated;
  result.info.capabilities = {"boot-pvh", "pause"};
  result.info.summary = "s";
  result.info.instructionsPerSecond = 1'300'000;
  result.watchedPaths = {"/usr/bin/qemu-system-x86_64"};
  result.configFields = {"nics.attachment.network", "disks.cache.direct"};
  return result;
}

TEST(ProbeResultTest, whatIsEncoded_isDecoded) {
  const auto decoded = decodeProbeResult(encodeProbeResult(sample()));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->info.name, "kvm");
  EXPECT_EQ(decoded->info.preference, 100u);
  EXPECT_TRUE(decoded->info.usable);
  EXPECT_EQ(decoded->info.acceleration, Acceleration::kEmulated);
  EXPECT_EQ(decoded->info.capabilities, sample().info.capabilities);
  EXPECT_EQ(decoded->info.instructionsPerSecond, 1'300'000u);
  EXPECT_EQ(decoded->watchedPaths, sample().watchedPaths);
  EXPECT_EQ(decoded->configFields, sample().configFields);
}

// Caches hold such files after an update: the plugin is probed again.
TEST(ProbeResultTest, answerInTheFormBeforeConfigFields_isRefused) {
  ProbeResult result = sample();
  result.configFields.clear();
  std::string bytes = encodeProbeResult(result);
  bytes.resize(bytes.size() - 8);
  EXPECT_FALSE(decodeProbeResult(bytes));
  bytes[7] = '1';
  EXPECT_FALSE(decodeProbeResult(bytes));
}

TEST(ProbeResultTest, fieldThatIsNoName_isRefused) {
  ProbeResult result = sample();
  result.configFields.push_back("nics[0]");
  EXPECT_FALSE(decodeProbeResult(encodeProbeResult(result)));
}

TEST(ProbeResultTest, anError_neverComesWithAUsableBackend) {
  ProbeResult result = sample();
  result.info.error = Error(ErrorCode::kUnavailable, "m\x1b[2J", "h", true);
  const auto decoded = decodeProbeResult(encodeProbeResult(result));
  ASSERT_TRUE(decoded && decoded->info.error);
  EXPECT_FALSE(decoded->info.usable);
  EXPECT_EQ(decoded->info.error->message(), "m\\x1b[2J");
  EXPECT_TRUE(decoded->info.error->retryable());
}

// As long and as hard to show as the limits allow.
TEST(ProbeResultTest, whatWasDecoded_staysTheSame) {
  const std::string raw(kMaxMessageBytes, '\x1b');
  ProbeResult result = sample();
  result.info.name = result.info.version = result.info.description = result.info.summary = result.info.hint = raw;
  result.info.capabilities.assign(kMaxCapabilities, std::string(32, 'c'));
  result.info.error = Error(ErrorCode::kUnavailable, raw, raw, true);
  result.watchedPaths.assign(kMaxWatchedPaths, '/' + std::string(kMaxMessageBytes - 1, 'p'));
  result.configFields.assign(kMaxConfigFields, std::string(kMaxConfigFieldBytes, 'f'));
  const auto once = decodeProbeResult(encodeProbeResult(result));
  ASSERT_TRUE(once);
  EXPECT_LE(once->info.name.size(), 32u);
  EXPECT_LE(once->info.error->message().size(), kMaxMessageBytes);
  const std::string encoded = encodeProbeResult(*once);
  const auto again = decodeProbeResult(encoded);
  ASSERT_TRUE(again);
  EXPECT_EQ(encodeProbeResult(*again), encoded);
}

TEST(ProbeResultTest, everyTruncation_isRefused) {
  const std::string bytes = encodeProbeResult(sample());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decodeProbeResult(std::string_view(bytes).substr(0, size))) << size;
  }
  EXPECT_FALSE(decodeProbeResult(bytes + 'x'));
  EXPECT_FALSE(decodeProbeResult(std::string(kMaxProbeBytes + 1, '\0')));
}

TEST(ProbeResultTest, damagedBytes_giveNothingOrSomethingWithinTheLimits) {
  std::mt19937 random(1);
  const std::string good = encodeProbeResult(sample());
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (int change = 0; change < 3; ++change) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (const auto decoded = decodeProbeResult(bytes)) {
      EXPECT_LE(decoded->info.capabilities.size(), 64u);
      for (const char byte : decoded->info.summary + decoded->info.name) {
        EXPECT_GE(static_cast<unsigned char>(byte), 0x20u);
      }
    }
  }
}

}  // namespace
}  // namespace vmmhost::plugin
