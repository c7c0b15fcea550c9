#include "worker-kvm/virtio/net/offloads.h"

#include <gtest/gtest.h>
#include <linux/if_tun.h>

namespace vmmhost::kvm::virtio::net {
namespace {

TEST(NetOffloads, tapThatCanDoLess_isOfferedAsLess) {
  const std::uint64_t all = offeredFeatures({true, true, true}, true, true);
  EXPECT_EQ(all & (kHostUso | kGuestUso4 | kGuestUso6), kHostUso | kGuestUso4 | kGuestUso6);
  EXPECT_EQ(offeredFeatures({true, true, false}, true, true) & (kHostUso | kGuestUso4 | kGuestUso6), 0u);
  EXPECT_EQ(offeredFeatures({true, false, false}, true, true) & (kHostUfo | kGuestUfo), 0u);
  const std::uint64_t none = offeredFeatures({}, false, false);
  EXPECT_EQ(none & (kCsum | kGuestCsum | kHostTso4 | kGuestTso6 | kMtu | kMq | kCtrlGuestOffloads), 0u);
  EXPECT_EQ(none & (kMac | kStatus | kMrgRxbuf), kMac | kStatus | kMrgRxbuf);
}

TEST(NetOffloads, featuresWhoseRequirementsAreMissing_doNotCount) {
  EXPECT_EQ(withoutUnmet(kGuestTso4 | kGuestEcn | kHostTso4 | kHostEcn | kMq | kMac), kMac);
  EXPECT_EQ(withoutUnmet(kGuestCsum | kGuestEcn), kGuestCsum);
  EXPECT_EQ(withoutUnmet(kCsum | kHostTso6 | kHostEcn), kCsum | kHostTso6 | kHostEcn);
  EXPECT_EQ(withoutUnmet(kCtrlVq | kMq), kCtrlVq | kMq);
}

TEST(NetOffloads, tapIsTold_whatTheDriverCanTake) {
  EXPECT_EQ(tapOffloads(kCsum | kHostTso4 | kMrgRxbuf), 0u);
  EXPECT_EQ(tapOffloads(kGuestTso4), 0u);  // of no use without checksums
  EXPECT_EQ(tapOffloads(kGuestCsum | kGuestTso4 | kGuestTso6 | kGuestEcn),
            static_cast<unsigned>(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN));
  EXPECT_EQ(tapOffloads(kGuestCsum | kGuestUso4), static_cast<unsigned>(TUN_F_CSUM));  // the system wants both
  EXPECT_EQ(tapOffloads(kGuestCsum | kGuestUso4 | kGuestUso6), static_cast<unsigned>(TUN_F_CSUM) | 0x60u);
}

TEST(NetOffloads, transmittedFrame_mayAskForWhatWasAgreedTo_andNoMore) {
  const auto admits = [](std::uint8_t flags, std::uint8_t gsoType, std::uint64_t features) {
    Header header{flags, gsoType, 54, 1460, 34, 16, 99};
    const bool admitted = admitTransmitted(header, features);
    EXPECT_EQ(header.numBuffers, 0);
    EXPECT_EQ(header.flags & ~kNeedsCsum, 0);
    return admitted;
  };
  EXPECT_TRUE(admits(0, kGsoNone, 0));
  Header meaningless{0, kGsoNone, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff};
  EXPECT_TRUE(admitTransmitted(meaningless, 0));
  EXPECT_EQ(meaningless.hdrLen | meaningless.gsoSize | meaningless.csumStart | meaningless.csumOffset, 0);
  EXPECT_TRUE(admits(0xfe, kGsoNone, 0));  // flags that are not known are ignored
  EXPECT_FALSE(admits(kNeedsCsum, kGsoNone, 0));
  EXPECT_TRUE(admits(kNeedsCsum, kGsoNone, kCsum));
  EXPECT_FALSE(admits(kNeedsCsum, kGsoTcp4, kCsum));
  EXPECT_TRUE(admits(kNeedsCsum, kGsoTcp4, kCsum | kHostTso4));
  EXPECT_FALSE(admits(0, kGsoTcp4, kCsum | kHostTso4));
  EXPECT_FALSE(admits(kNeedsCsum, kGsoTcp4 | kGsoEcn, kCsum | kHostTso4));
  EXPECT_TRUE(admits(kNeedsCsum, kGsoTcp4 | kGsoEcn, kCsum | kHostTso4 | kHostEcn));
  EXPECT_FALSE(admits(kNeedsCsum, kGsoTcp6, kCsum | kHostTso4));
  EXPECT_FALSE(admits(kNeedsCsum, kGsoUdp, kCsum | kHostUso));
  EXPECT_TRUE(admits(kNeedsCsum, kGsoUdpL4, kCsum | kHostUso));
  EXPECT_FALSE(admits(kNeedsCsum, kGsoUdpL4 | kGsoEcn, kCsum | kHostUso | kHostEcn));
  EXPECT_FALSE(admits(kNeedsCsum, kGsoEcn, ~std::uint64_t{0}));
  EXPECT_FALSE(admits(kNeedsCsum, 2, ~std::uint64_t{0}));
  EXPECT_FALSE(admits(kNeedsCsum, 0x7f, ~std::uint64_t{0}));
}

TEST(NetOffloads, receivedFrame_isWhatTheDriverCanTake) {
  Header header{kNeedsCsum, kGsoNone, 0, 0, 34, 16, 0};
  EXPECT_FALSE(admitReceived(header, 0));
  EXPECT_TRUE(admitReceived(header, kGuestCsum));
  EXPECT_EQ(header.flags, kNeedsCsum);
  header = {kDataValid, kGsoNone, 0, 0, 0, 0, 0};
  EXPECT_TRUE(admitReceived(header, 0));
  EXPECT_EQ(header.flags, 0);
  header = {kNeedsCsum, kGsoTcp6, 0, 0, 0, 0, 0};
  EXPECT_FALSE(admitReceived(header, kGuestCsum | kGuestTso4));
  EXPECT_TRUE(admitReceived(header, kGuestCsum | kGuestTso6));
}

}  // namespace
}  // namespace vmmhost::kvm::virtio::net
