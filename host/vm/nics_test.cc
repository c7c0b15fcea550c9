#include <capnp/message.h>

#include "host/config/mac.h"
#include "host/net/test_tap.h"
#include "host/vm/resources.h"

namespace vmmhost::vm {
namespace {

using NicsTest = net::NetworkTest;

TEST_F(NicsTest, cards_getAddressAndMtu_andQueuesForTheirCpus) {
  make("tap0", IFF_TAP | IFF_MULTI_QUEUE);
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.setName("web");
  config.getCpus().setCount(2);
  auto nics = config.initNics(2);
  nics[0].getAttachment().setTap("tap0");
  nics[1].setMac("02:00:00:00:00:07");
  const OpenedResources opened = openResources(config, "/");
  ASSERT_EQ(opened.nicQueues.size(), 2u);
  EXPECT_EQ(opened.nicQueues[1].nic, 0u);
  EXPECT_EQ(opened.nicQueues[1].queue, 1u);
  EXPECT_EQ(nics[0].getMtu(), 1500);
  EXPECT_EQ(nics[0].asReader().getMac(), config::deriveMac("web", 0));
  EXPECT_EQ(nics[1].asReader().getMac(), "02:00:00:00:00:07");
}

TEST_F(NicsTest, mtuBeyondTheDevice_isRefused) {
  make("tap0", IFF_TAP);
  capnp::MallocMessageBuilder message;
  auto nics = message.initRoot<schema::VmConfig>().initNics(1);
  nics[0].getAttachment().setTap("tap0");
  nics[0].setMtu(1501);
  try {
    openResources(message.getRoot<schema::VmConfig>(), "/");
    ADD_FAILURE() << "was not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "nics[0].mtu: 1501 is more than the 1500 of TAP device tap0");
  }
}

}  // namespace
}  // namespace vmmhost::vm
