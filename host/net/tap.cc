#include "host/net/tap.h"

#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "vmmhost/error.h"

namespace vmmhost::net {
namespace {

constexpr int kHeaderBytes = 12;
constexpr std::uint8_t kTypeTap = 2;  // IFLA_TUN_TYPE: IFF_TAP
constexpr std::uint32_t kNobody = 0xffffffff;

// What the kernel tells about a device (rtnetlink(7)).
struct TapInfo {
  int index = 0;
  std::uint32_t mtu = 0;
  std::string kind;  // "tun" for TAP and TUN devices
  std::uint8_t type = 0;
  bool isMultiQueue = false;
  std::uint32_t usedQueues = 0;  // told of multi-queue devices only
  std::uint32_t owner = kNobody;
  std::uint32_t group = kNobody;
};

void read(const nlattr* attribute, std::uint32_t& value) {
  if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0) {
    value = mnl_attr_get_u32(attribute);
  }
}

void read(const nlattr* attribute, std::uint8_t& value) {
  if (mnl_attr_validate(attribute, MNL_TYPE_U8) == 0) {
    value = mnl_attr_get_u8(attribute);
  }
}

int readTun(const nlattr* attribute, void* data) {
  TapInfo& info = *static_cast<TapInfo*>(data);
  std::uint8_t isMultiQueue = 0;
  switch (mnl_attr_get_type(attribute)) {
    case IFLA_TUN_OWNER:
      read(attribute, info.owner);
      break;
    case IFLA_TUN_GROUP:
      read(attribute, info.group);
      break;
    case IFLA_TUN_TYPE:
      read(attribute, info.type);
      break;
    case IFLA_TUN_MULTI_QUEUE:
      read(attribute, isMultiQueue);
      info.isMultiQueue = isMultiQueue != 0;
      break;
    case IFLA_TUN_NUM_QUEUES:
      read(attribute, info.usedQueues);
      break;
    default:
      break;
  }
  return MNL_CB_OK;
}

// The kind comes before what is particular to it.
int readLinkInfo(const nlattr* attribute, void* data) {
  TapInfo& info = *static_cast<TapInfo*>(data);
  if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0) {
    info.kind = mnl_attr_get_str(attribute);
  } else if (mnl_attr_get_type(attribute) == IFLA_INFO_DATA && info.kind == "tun") {
    return mnl_attr_parse_nested(attribute, readTun, data);
  }
  return MNL_CB_OK;
}

int readLink(const nlattr* attribute, void* data) {
  TapInfo& info = *static_cast<TapInfo*>(data);
  if (mnl_attr_get_type(attribute) == IFLA_MTU) {
    read(attribute, info.mtu);
  } else if (mnl_attr_get_type(attribute) == IFLA_LINKINFO) {
    return mnl_attr_parse_nested(attribute, readLinkInfo, data);
  }
  return MNL_CB_OK;
}

int readMessage(const nlmsghdr* message, void* data) {
  if (message->nlmsg_type == RTM_NEWLINK && mnl_nlmsg_get_payload_len(message) >= sizeof(ifinfomsg)) {
    auto& found = *static_cast<std::optional<TapInfo>*>(data);
    found.emplace();
    found->index = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message))->ifi_index;
    mnl_attr_parse(message, sizeof(ifinfomsg), readLink, &*found);
  }
  return MNL_CB_STOP;
}

// Nothing if there is no such device.
std::optional<TapInfo> look(const std::string& subject, const std::string& name) {
  const auto fail = [&subject]() { throw systemError(subject + ": asking for network devices", errno); };
  const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC),
                                                                 mnl_socket_close);
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) != 0) {
    fail();
  }
  alignas(nlmsghdr) std::array<char, 16384> buffer;
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETLINK;
  request->nlmsg_flags = NLM_F_REQUEST;
  mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg));
  mnl_attr_put_strz(request, IFLA_IFNAME, name.substr(0, IFNAMSIZ - 1).c_str());
  if (mnl_socket_sendto(socket.get(), request, request->nlmsg_len) < 0) {
    fail();
  }
  const ssize_t got = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
  if (got < 0) {
    fail();
  }
  std::optional<TapInfo> found;
  const unsigned port = mnl_socket_get_portid(socket.get());
  if (mnl_cb_run(buffer.data(), static_cast<std::size_t>(got), 0, port, readMessage, &found) < 0 && errno != ENODEV) {
    fail();
  }
  return found;
}

bool isMine(const TapInfo& info) {
  if (info.owner == ::geteuid()) {
    return true;
  }
  std::vector<gid_t> groups(static_cast<std::size_t>(std::max(0, ::getgroups(0, nullptr))));
  groups.resize(static_cast<std::size_t>(std::max(0, ::getgroups(static_cast<int>(groups.size()), groups.data()))));
  groups.push_back(::getegid());
  return info.group != kNobody && std::find(groups.begin(), groups.end(), info.group) != groups.end();
}

std::string ownerText(const TapInfo& info) {
  if (info.owner == kNobody && info.group == kNobody) {
    return "to nobody, so that only root may use it";
  }
  return info.owner != kNobody ? "to user " + std::to_string(info.owner) : "to group " + std::to_string(info.group);
}

Error inUse(const std::string& subject) {
  return Error(ErrorCode::kFailedPrecondition, subject + " is in use", "stop what uses it", true);
}

void check(const std::string& subject, const std::string& name, const std::optional<TapInfo>& found) {
  const std::string makes =
      "`ip tuntap add dev " + name + " mode tap user " + std::to_string(::geteuid()) + "`, as root, makes one";
  if (!found) {
    throw Error(ErrorCode::kNotFound, subject + ": no such network device", makes);
  }
  if (found->kind != "tun" || found->type != kTypeTap) {
    throw Error(ErrorCode::kInvalidArgument, subject + " is no TAP device", makes);
  }
  // The system looks at owners too, but lets everybody have what nobody owns.
  if (::geteuid() != 0 && !isMine(*found)) {
    throw Error(ErrorCode::kPermissionDenied,
                subject + " belongs " + ownerText(*found) + ", not to user " + std::to_string(::geteuid()), makes);
  }
  if (found->usedQueues != 0) {
    throw inUse(subject);
  }
}

Fd openQueue(const std::string& subject, const std::string& name, bool isMultiQueue) {
  Fd queue(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!queue) {
    throw systemError(subject + ": /dev/net/tun", errno);
  }
  ifreq request{};
  name.copy(request.ifr_name, sizeof request.ifr_name - 1);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (isMultiQueue ? IFF_MULTI_QUEUE : 0));
  if (::ioctl(queue.get(), TUNSETIFF, &request) != 0) {
    if (errno == EBUSY) {
      throw inUse(subject);
    }
    throw systemError(subject, errno);
  }
  if (::ioctl(queue.get(), TUNSETVNETHDRSZ, &kHeaderBytes) != 0) {
    throw systemError(subject + ": its header", errno);
  }
  return queue;
}

}  // namespace

OpenedTap openTap(const std::string& field, const std::string& name, std::size_t mostQueues) {
  const std::string subject = field + ": " + name;
  const std::optional<TapInfo> found = look(subject, name);
  check(subject, name, found);
  OpenedTap opened;
  opened.mtu = static_cast<std::uint16_t>(std::min<std::uint32_t>(found->mtu, 65535));
  const std::size_t queues = found->isMultiQueue ? std::max<std::size_t>(mostQueues, 1) : 1;
  for (std::size_t queue = 0; queue < queues; ++queue) {
    opened.queues.push_back(openQueue(subject, name, found->isMultiQueue));
  }
  // Where the device was deleted meanwhile, the above has made one, which goes again with its descriptors.
  const std::optional<TapInfo> attached = look(subject, name);
  if (!attached || attached->index != found->index) {
    throw Error(ErrorCode::kNotFound, subject + ": was deleted while it was being opened", {}, true);
  }
  // The kernel lets several have the queues of one device. Two that have found it free both see each other now, and
  // both give up: neither can tell who was first.
  if (attached->isMultiQueue && attached->usedQueues != opened.queues.size()) {
    throw inUse(subject);
  }
  return opened;
}

}  // namespace vmmhost::net
