#include "worker-kvm/virtio/net/control.h"

#include <gtest/gtest.h>

#include <vector>

#include "worker-kvm/virtio/net/offloads.h"

namespace vmmhost::kvm::virtio::net {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Kind = Command::Kind;

constexpr std::uint64_t kAll = kCtrlVq | kCtrlRx | kCtrlMacAddr | kMq | kCtrlGuestOffloads | kGuestCsum | kGuestTso4;

Command parse(const Bytes& request, std::uint64_t features = kAll, std::uint16_t maxPairs = 4) {
  return parseCommand(request, features, maxPairs);
}

Bytes macTable(std::uint32_t unicast, std::uint32_t multicast, std::ptrdiff_t bytesMore = 0) {
  Bytes table{kClassMac, kMacTableSet};
  for (const std::uint32_t entries : {unicast, multicast}) {
    for (int byte = 0; byte < 4; ++byte) {
      table.push_back(static_cast<std::uint8_t>(entries >> (8 * byte)));
    }
    table.resize(table.size() + 6 * std::min<std::size_t>(entries, 100), 0x02);
  }
  table.resize(static_cast<std::size_t>(static_cast<std::ptrdiff_t>(table.size()) + bytesMore));
  return table;
}

TEST(NetControl, filters_areAcceptedWhenWellFormed) {
  EXPECT_EQ(parse({kClassRx, kRxPromisc, 1}).kind, Kind::kAccepted);
  EXPECT_EQ(parse({kClassRx, kRxAllMulti, 0}).kind, Kind::kAccepted);
  EXPECT_EQ(parse({kClassRx, kRxPromisc, 2}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassRx, kRxPromisc}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassRx, kRxPromisc, 1, 1}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassRx, 2, 1}).kind, Kind::kRefused);  // VIRTIO_NET_F_CTRL_RX_EXTRA is not offered
  EXPECT_EQ(parse({kClassRx, kRxPromisc, 1}, kAll & ~kCtrlRx).kind, Kind::kRefused);
}

TEST(NetControl, macTable_isAcceptedWhenItsCountsAreThoseOfItsBytes) {
  EXPECT_EQ(parse(macTable(0, 0)).kind, Kind::kAccepted);
  EXPECT_EQ(parse(macTable(3, 5)).kind, Kind::kAccepted);
  EXPECT_EQ(parse(macTable(3, 5, 1)).kind, Kind::kRefused);
  EXPECT_EQ(parse(macTable(3, 5, -1)).kind, Kind::kRefused);
  EXPECT_EQ(parse(macTable(0xffffffff, 0)).kind, Kind::kRefused);
  EXPECT_EQ(parse(macTable(0, 0x2aaaaaab)).kind, Kind::kRefused);  // times 6 it wraps around to 2
  EXPECT_EQ(parse(macTable(1, 0, -8)).kind, Kind::kRefused);
}

TEST(NetControl, address_isOneOfAStation) {
  const Command set = parse({kClassMac, kMacAddrSet, 0x02, 1, 2, 3, 4, 5});
  EXPECT_EQ(set.kind, Kind::kSetMac);
  EXPECT_EQ(set.mac, (MacAddress{0x02, 1, 2, 3, 4, 5}));
  EXPECT_EQ(parse({kClassMac, kMacAddrSet, 0x01, 1, 2, 3, 4, 5}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMac, kMacAddrSet, 0, 0, 0, 0, 0, 0}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMac, kMacAddrSet, 0x02, 1, 2, 3, 4}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMac, kMacAddrSet, 2, 1, 2, 3, 4, 5}, kAll & ~kCtrlMacAddr).kind, Kind::kRefused);
}

TEST(NetControl, pairs_areBetweenOneAndTheMost) {
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 4, 0}).pairs, 4);
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 4, 0}).kind, Kind::kSetPairs);
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 0, 0}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 5, 0}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 1, 1}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 1}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassMq, 1, 1, 0}).kind, Kind::kRefused);  // RSS is not offered
  EXPECT_EQ(parse({kClassMq, kMqVqPairsSet, 2, 0}, kAll & ~kMq).kind, Kind::kRefused);
}

TEST(NetControl, offloads_areSomeOfThoseAgreedTo) {
  const Command set = parse({kClassGuestOffloads, kGuestOffloadsSet, 2, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(set.kind, Kind::kSetOffloads);
  EXPECT_EQ(set.offloads, kGuestCsum);
  EXPECT_EQ(parse({kClassGuestOffloads, kGuestOffloadsSet, 2, 1, 0, 0, 0, 0, 0, 0}).kind, Kind::kRefused);  // TSO6
  EXPECT_EQ(parse({kClassGuestOffloads, kGuestOffloadsSet, 2, 0, 0, 0}).kind, Kind::kRefused);
}

TEST(NetControl, whatWasNotAgreedTo_isRefused) {
  EXPECT_EQ(parse({}).kind, Kind::kRefused);
  EXPECT_EQ(parse({kClassRx}).kind, Kind::kRefused);
  EXPECT_EQ(parse({2, 0, 1, 0}).kind, Kind::kRefused);  // VLAN filters
  EXPECT_EQ(parse({3, 0}).kind, Kind::kRefused);        // announcements
  EXPECT_EQ(parse({255, 255, 255}).kind, Kind::kRefused);
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::net
