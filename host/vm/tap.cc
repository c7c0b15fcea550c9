#include "host/vm/tap.h"

#include <fcntl.h>
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
#include <optional>
#include <span>
#include <string_view>

#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

constexpr int kHeaderBytes = 12;
constexpr std::uint8_t kTypeTap = 2;  // IFLA_TUN_TYPE: IFF_TAP
constexpr std::uint32_t kNobody = 0xffffffff;

using Attributes = std::span<const std::uint8_t>;

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

// Calls each(type, content) for the attributes in `all`.
template <typename Each>
void forEachAttribute(Attributes all, Each each) {
  while (all.size() >= sizeof(rtattr)) {
    rtattr attribute;
    std::memcpy(&attribute, all.data(), sizeof attribute);
    if (attribute.rta_len < sizeof attribute || attribute.rta_len > all.size()) {
      return;
    }
    each(attribute.rta_type & NLA_TYPE_MASK, all.subspan(sizeof attribute, attribute.rta_len - sizeof attribute));
    all = all.subspan(std::min<std::size_t>(RTA_ALIGN(attribute.rta_len), all.size()));
  }
}

template <typename Value>
void read(Attributes content, Value& value) {
  if (content.size() >= sizeof value) {
    std::memcpy(&value, content.data(), sizeof value);
  }
}

void readTun(Attributes content, TapInfo& info) {
  std::uint8_t isMultiQueue = 0;
  forEachAttribute(content, [&](int type, Attributes value) {
    switch (type) {
      case IFLA_TUN_OWNER:
        return read(value, info.owner);
      case IFLA_TUN_GROUP:
        return read(value, info.group);
      case IFLA_TUN_TYPE:
        return read(value, info.type);
      case IFLA_TUN_MULTI_QUEUE:
        return read(value, isMultiQueue);
      case IFLA_TUN_NUM_QUEUES:
        return read(value, info.usedQueues);
      default:
        return;
    }
  });
  info.isMultiQueue = isMultiQueue != 0;
}

TapInfo readLink(Attributes message) {
  TapInfo info;
  ifinfomsg link{};
  read(message, link);
  info.index = link.ifi_index;
  forEachAttribute(message.subspan(std::min(message.size(), sizeof link)), [&](int type, Attributes value) {
    if (type == IFLA_MTU) {
      read(value, info.mtu);
    } else if (type == IFLA_LINKINFO) {
      Attributes data;
      forEachAttribute(value, [&](int inner, Attributes content) {
        if (inner == IFLA_INFO_KIND) {
          info.kind.assign(content.begin(), std::find(content.begin(), content.end(), std::uint8_t{0}));
        } else if (inner == IFLA_INFO_DATA) {
          data = content;
        }
      });
      if (info.kind == "tun") {
        readTun(data, info);
      }
    }
  });
  return info;
}

// Nothing if there is no such device.
std::optional<TapInfo> look(const std::string& subject, const std::string& name) {
  const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) {
    throw systemError(subject + ": asking for network devices", errno);
  }
  struct {
    nlmsghdr header;
    ifinfomsg info;
    rtattr attribute;
    char name[IFNAMSIZ];
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.attribute.rta_type = IFLA_IFNAME;
  request.attribute.rta_len = sizeof request.attribute + sizeof request.name;
  name.copy(request.name, sizeof request.name - 1);
  alignas(nlmsghdr) std::array<std::uint8_t, 16384> answer;
  if (::send(socket.get(), &request, sizeof request, 0) != sizeof request) {
    throw systemError(subject + ": asking for network devices", errno);
  }
  const ssize_t got = ::recv(socket.get(), answer.data(), answer.size(), 0);
  if (got < 0) {
    throw systemError(subject + ": asking for network devices", errno);
  }
  nlmsghdr header{};
  const Attributes message(answer.data(), static_cast<std::size_t>(got));
  read(message, header);
  if (header.nlmsg_type != RTM_NEWLINK || header.nlmsg_len > message.size() || header.nlmsg_len < sizeof header) {
    return std::nullopt;
  }
  return readLink(message.first(header.nlmsg_len).subspan(sizeof header));
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
    throw Error(ErrorCode::kFailedPrecondition, subject + " is in use", "stop what uses it", true);
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
      throw Error(ErrorCode::kFailedPrecondition, subject + " is in use", "stop what uses it", true);
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
  if (static_cast<int>(::if_nametoindex(name.c_str())) != found->index) {
    throw Error(ErrorCode::kNotFound, subject + ": was deleted while it was being opened", {}, true);
  }
  return opened;
}

}  // namespace vmmhost::vm
