// Reaching anybody else.
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <cstring>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

template <int kFamily, int kType>
int makeSocket(const Loot&) {
  return raw(__NR_socket, kFamily, kType, 0);
}

sockaddr_un dockerSocket() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "/run/docker.sock");
  return address;
}

int sendMessage(int descriptor, int flags, bool withDescriptor) {
  char byte = 'x';
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (withDescriptor) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  }
  return raw(__NR_sendmsg, descriptor, &message, flags);
}

// Where a message begins: more segments than there can be, and then no message at all.
int sendNonsense(const Loot& loot) {
  unsigned char block[256];
  for (std::size_t i = 0; i < sizeof block; ++i) {
    block[i] = static_cast<unsigned char>(i < 4 ? 0xff : i * 167);
  }
  return ::write(loot.rpc, block, sizeof block) < 0 ? errno : 0;
}

constexpr Attack kAttacks[] = {
    {"socket-unix", makeSocket<AF_UNIX, SOCK_STREAM>},
    {"socket-inet", makeSocket<AF_INET, SOCK_STREAM>},
    {"socket-inet6", makeSocket<AF_INET6, SOCK_DGRAM>},
    {"socket-netlink", makeSocket<AF_NETLINK, SOCK_RAW>},
    {"socket-packet", makeSocket<AF_PACKET, SOCK_RAW>},
    {"socket-vsock", makeSocket<AF_VSOCK, SOCK_STREAM>},
    {"socket-alg", makeSocket<AF_ALG, SOCK_SEQPACKET>},
    {"socketpair",
     [](const Loot&) {
       int pair[2];
       return raw(__NR_socketpair, AF_UNIX, SOCK_DGRAM, 0, pair);
     }},
    {"connect",
     [](const Loot& loot) {
       const sockaddr_un address = dockerSocket();
       return raw(__NR_connect, loot.rpc, &address, sizeof address);
     }},
    {"bind",
     [](const Loot& loot) {
       const sockaddr_un address = dockerSocket();
       return raw(__NR_bind, loot.rpc, &address, sizeof address);
     }},
    {"listen", [](const Loot& loot) { return raw(__NR_listen, loot.rpc, 1); }},
    {"accept", [](const Loot& loot) { return raw(__NR_accept4, loot.rpc, nullptr, nullptr, 0); }},
    {"send-to-path",
     [](const Loot& loot) {
       const sockaddr_un address = dockerSocket();
       return raw(__NR_sendto, loot.rpc, "x", 1, 0, &address, sizeof address);
     }},
    {"send-descriptor", [](const Loot& loot) { return sendMessage(loot.rpc, 0, true); }},
    {"send-out-of-band", [](const Loot& loot) { return sendMessage(loot.rpc, MSG_OOB, false); }},
    {"rpc-nonsense", sendNonsense, kBroken, kBroken},
    {"socket-option",
     [](const Loot& loot) {
       const int size = 1 << 30;
       return raw(__NR_setsockopt, loot.rpc, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
     },
     kKilled, fails(EOPNOTSUPP)},
    {"peer-pidfd",
     [](const Loot& loot) {
       int pidfd = -1;
       socklen_t length = sizeof pidfd;
       return raw(__NR_getsockopt, loot.rpc, SOL_SOCKET, 77 /* SO_PEERPIDFD */, &pidfd, &length);
     },
     kKilled, fails(EOPNOTSUPP)},
};

}  // namespace

std::span<const Attack> socketAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
