// A TAP device in a network namespace of its own, and the system's side of it. For tests and measurements. Header only.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "vmmhost/error.h"
#include "vmmhost/fd.h"
#include "worker-kvm/virtio/net/protocol.h"

namespace vmmhost::kvm::virtio::net::test {

inline void check(bool succeeded, const char* what) {
  if (!succeeded) {
    throw systemError(what, errno);
  }
}

// The process has a network of its own from now on. False, with the reason, where that is not allowed.
inline bool enterOwnNetwork(std::string& reason) {
  static const int error = ::unshare(CLONE_NEWNET) == 0 ? 0 : errno;
  if (error != 0) {
    reason = systemError("a network namespace and TAP devices need root", error).message();
    return false;
  }
  // What the system would say by itself is not to mix with what tests send.
  for (const char* file :
       {"/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6"}) {
    const Fd setting(::open(file, O_WRONLY | O_CLOEXEC));
    [[maybe_unused]] const ssize_t written = ::write(setting.get(), "1", 1);
  }
  return true;
}

class TestTap {
 public:
  // Up, with so many queues; `queues()` are as a host hands them to a device.
  explicit TestTap(std::string name, std::size_t queues = 1, bool nonBlocking = true)
      : name_(std::move(name)), control_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    for (std::size_t i = 0; i < queues; ++i) {
      queues_.emplace_back(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | (nonBlocking ? O_NONBLOCK : 0)));
      check(queues_.back().get() >= 0, "/dev/net/tun");
      ifreq request = named();
      request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0));
      check(::ioctl(queues_.back().get(), TUNSETIFF, &request) == 0, "TUNSETIFF");
      const int bytes = sizeof(Header);
      check(::ioctl(queues_.back().get(), TUNSETVNETHDRSZ, &bytes) == 0, "TUNSETVNETHDRSZ");
    }
    ifreq request = named();
    request.ifr_flags = IFF_UP;
    check(::ioctl(control_.get(), SIOCSIFFLAGS, &request) == 0, "SIOCSIFFLAGS");
    index_ = static_cast<int>(::if_nametoindex(name_.c_str()));
    request = named();
    check(::ioctl(control_.get(), SIOCGIFHWADDR, &request) == 0, "SIOCGIFHWADDR");
    std::memcpy(mac_.data(), request.ifr_hwaddr.sa_data, mac_.size());
  }

  std::vector<Fd> takeQueues() { return std::move(queues_); }
  const MacAddress& mac() const { return mac_; }
  int index() const { return index_; }

  void setAddress(const char* address, const char* mask) {
    setAddress(SIOCSIFADDR, address);
    setAddress(SIOCSIFNETMASK, mask);
  }
  // Who has `address` need not be asked for.
  void addNeighbour(const char* address, const MacAddress& mac) {
    arpreq request{};
    auto* in = reinterpret_cast<sockaddr_in*>(&request.arp_pa);
    in->sin_family = AF_INET;
    ::inet_pton(AF_INET, address, &in->sin_addr);
    request.arp_ha.sa_family = ARPHRD_ETHER;
    std::memcpy(request.arp_ha.sa_data, mac.data(), mac.size());
    request.arp_flags = ATF_PERM | ATF_COM;
    std::memcpy(request.arp_dev, name_.c_str(), name_.size());
    check(::ioctl(control_.get(), SIOCSARP, &request) == 0, "SIOCSARP");
  }

  // What goes in and out of the device as the system sees it, of one kind of frame.
  Fd packetSocket(std::uint16_t etherType, bool withHeader = false) const {
    Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    check(socket.get() >= 0, "packet socket");
    const int on = 1;
    check(!withHeader || ::setsockopt(socket.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) == 0,
          "PACKET_VNET_HDR");
    // Or what is sent here would be seen here.
    check(::setsockopt(socket.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) == 0,
          "PACKET_IGNORE_OUTGOING");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(etherType);
    address.sll_ifindex = index_;
    check(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
    return socket;
  }

  // Deletes the device, as an administrator may at any time.
  void remove() {
    const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    struct {
      nlmsghdr header;
      ifinfomsg info;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_DELLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    request.info.ifi_index = index_;
    check(::send(socket.get(), &request, sizeof request, 0) == sizeof request, "RTM_DELLINK");
    char answer[256];
    check(::recv(socket.get(), answer, sizeof answer, 0) > 0, "RTM_DELLINK");
  }

 private:
  ifreq named() const {
    ifreq request{};
    std::memcpy(request.ifr_name, name_.c_str(), name_.size());
    return request;
  }
  void setAddress(unsigned long what, const char* address) {
    ifreq request = named();
    auto* in = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
    in->sin_family = AF_INET;
    ::inet_pton(AF_INET, address, &in->sin_addr);
    check(::ioctl(control_.get(), what, &request) == 0, "setting an address");
  }

  std::string name_;
  Fd control_;
  std::vector<Fd> queues_;
  MacAddress mac_{};
  int index_ = 0;
};

// The next message of a socket within the deadline; nothing if there is none.
inline std::optional<std::vector<std::uint8_t>> receive(const Fd& socket, int milliseconds = 10000) {
  pollfd waiting{socket.get(), POLLIN, 0};
  if (::poll(&waiting, 1, milliseconds) != 1) {
    return std::nullopt;
  }
  std::vector<std::uint8_t> bytes(kMaxFrameBytes);
  const ssize_t got = ::recv(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0) {
    return std::nullopt;
  }
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

// --- frames ---

inline constexpr std::uint16_t kTestEtherType = 0x88b5;  // for experiments

inline void put16(std::vector<std::uint8_t>& bytes, std::size_t at, std::uint16_t value) {  // network order
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value);
}
inline std::uint16_t get16(const std::vector<std::uint8_t>& bytes, std::size_t at) {
  return static_cast<std::uint16_t>(bytes.at(at) << 8 | bytes.at(at + 1));
}

inline std::vector<std::uint8_t> ethernet(const MacAddress& to, const MacAddress& from, std::uint16_t type,
                                          std::size_t payload) {
  std::vector<std::uint8_t> frame(14 + payload);
  std::memcpy(frame.data(), to.data(), to.size());
  std::memcpy(frame.data() + 6, from.data(), from.size());
  put16(frame, 12, type);
  for (std::size_t i = 0; i < payload; ++i) {
    frame[14 + i] = static_cast<std::uint8_t>(i * 7 + i / 251);
  }
  return frame;
}

inline std::uint32_t sum(const std::vector<std::uint8_t>& bytes, std::size_t at, std::size_t end,
                         std::uint32_t start = 0) {
  for (; at < end; at += 2) {
    start += static_cast<std::uint32_t>(bytes[at] << 8 | (at + 1 < end ? bytes[at + 1] : 0));
  }
  return start;
}
inline std::uint16_t folded(std::uint32_t value) {
  while (value > 0xffff) {
    value = (value & 0xffff) + (value >> 16);
  }
  return static_cast<std::uint16_t>(value);
}

inline constexpr std::size_t kIp = 14;          // of an Ethernet frame without tags
inline constexpr std::size_t kTransport = 34;   // of one with IPv4 without options
inline constexpr std::size_t kUdpChecksum = 6;  // in the transport header
inline constexpr std::size_t kTcpChecksum = 16;

// The sum of the pseudo-header: what stands in the checksum's place when the rest is left to others.
inline std::uint16_t pseudoSum(const std::vector<std::uint8_t>& frame) {
  return folded(sum(frame, kIp + 12, kIp + 20, frame[kIp + 9]) + static_cast<std::uint32_t>(frame.size() - kTransport));
}

// IPv4 with `protocol` (17: UDP, 6: TCP) around so many bytes of payload; its checksum is left to others.
inline std::vector<std::uint8_t> ipv4(const MacAddress& to, const MacAddress& from, const char* source,
                                      const char* target, std::uint8_t protocol, std::uint16_t sourcePort,
                                      std::uint16_t targetPort, std::size_t payload) {
  const std::size_t headerBytes = protocol == 6 ? 20 : 8;
  auto frame = ethernet(to, from, ETH_P_IP, 20 + headerBytes + payload);
  std::fill(frame.begin() + kIp, frame.begin() + static_cast<std::ptrdiff_t>(kTransport + headerBytes),
            std::uint8_t{0});
  frame[kIp] = 0x45;
  put16(frame, kIp + 2, static_cast<std::uint16_t>(frame.size() - kIp));
  frame[kIp + 8] = 64;
  frame[kIp + 9] = protocol;
  ::inet_pton(AF_INET, source, frame.data() + kIp + 12);
  ::inet_pton(AF_INET, target, frame.data() + kIp + 16);
  put16(frame, kIp + 10, static_cast<std::uint16_t>(~folded(sum(frame, kIp, kIp + 20))));
  put16(frame, kTransport, sourcePort);
  put16(frame, kTransport + 2, targetPort);
  if (protocol == 6) {
    frame[kTransport + 12] = 0x50;
    frame[kTransport + 13] = 0x10;  // ACK
    put16(frame, kTransport + 14, 0xffff);
    put16(frame, kTransport + kTcpChecksum, pseudoSum(frame));
  } else {
    put16(frame, kTransport + 4, static_cast<std::uint16_t>(frame.size() - kTransport));
    put16(frame, kTransport + kUdpChecksum, pseudoSum(frame));
  }
  return frame;
}

}  // namespace vmmhost::kvm::virtio::net::test
