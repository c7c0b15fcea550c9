// What only a client can do: it may send descriptors and urgent data, and is told of things.
#include <capnp/capability.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "tests/hostile/flood/floods.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::hostile {
namespace {

constexpr std::uint16_t kInfo = 1;
constexpr std::uint16_t kConsole = 8;
constexpr std::uint16_t kWatch = 9;

void infoStorm(Wire& wire, const Door& door) {
  Repeated calls(1, [&](std::uint32_t question) { return call(question, door, kInfo) + finish(question); });
  wire.send(bootstrap(0));
  while (wire.send(calls.some(16)) && wire.read(std::size_t{1} << 20)) {
  }
}

void infoAndNeverRead(Wire& wire, const Door& door) {
  Repeated calls(1, [&](std::uint32_t question) { return call(question, door, kInfo) + finish(question); });
  wire.send(bootstrap(0));
  while (wire.send(calls.some(16))) {
  }
}

// News of each change, for one who never takes any.
void watchAndNeverRead(Wire& wire, const Door& door) {
  Repeated calls(1, [&](std::uint32_t question) {
    return call(question, door, kWatch, [&](capnp::rpc::Call::Builder call) {
      auto params = call.getParams();
      params.initCapTable(1)[0].setSenderHosted(question);
      capnp::BuilderCapabilityTable capabilities;
      capabilities.imbue(params.getContent())
          .initAs<schema::Control::WatchParams>()
          .setSink(schema::StateSink::Client(KJ_EXCEPTION(FAILED, "stands for itself")));
    });
  });
  wire.send(bootstrap(0) + calls.some(8));
  wire.rest();
}

void consolesAndNeverRead(Wire& wire, const Door& door) {
  Repeated calls(1, [&](std::uint32_t question) { return call(question, door, kConsole); });
  wire.send(bootstrap(0) + calls.some(4));
  wire.rest();
}

void consolesAgainAndAgain(Wire& wire, const Door& door) {
  Repeated calls(1, [&](std::uint32_t question) { return call(question, door, kConsole) + finish(question); });
  wire.send(bootstrap(0));
  while (wire.send(calls.some(4)) && wire.read()) {
  }
}

bool sendWith(Wire& wire, std::span<const std::uint8_t> bytes, std::span<const int> descriptors, int flags) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(16 * sizeof(int))> control{};
  iovec piece = {const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* message = CMSG_FIRSTHDR(&header);
    message->cmsg_level = SOL_SOCKET;
    message->cmsg_type = SCM_RIGHTS;
    message->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(message), descriptors.data(), descriptors.size_bytes());
  }
  while (!wire.isOver()) {
    if (::sendmsg(wire.socket(), &header, flags | MSG_NOSIGNAL) >= 0) {
      return true;
    }
    if (errno != EAGAIN && errno != ETOOMANYREFS) {
      return false;
    }
    wire.pause(std::chrono::milliseconds(1));
    wire.read();
  }
  return false;
}

// Some with every byte.
void descriptors(Wire& wire, const Door&) {
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::array<int, 16> many;
  many.fill(null);
  Repeated asking(1, [](std::uint32_t question) { return bootstrap(question) + finish(question); });
  bool goesOn = true;
  while (goesOn) {
    for (const std::uint8_t byte : asking.some(1)) {
      goesOn = goesOn && sendWith(wire, {&byte, 1}, many, 0);
    }
    wire.read();
  }
  ::close(null);
}

void urgentData(Wire& wire, const Door&) {
  Repeated asking(1, [](std::uint32_t question) { return bootstrap(question) + finish(question); });
  const std::uint8_t urgent = 0;
  while (sendWith(wire, {&urgent, 1}, {}, MSG_OOB) && wire.send(asking.some(4)) && wire.read()) {
  }
}

// Comes, and says nothing.
void halfOpen(Wire& wire, const Door&) {
  wire.rest();
}

// Is answered, and never says hello.
void bootstrapAlone(Wire& wire, const Door&) {
  wire.send(bootstrap(0));
  wire.rest();
}

void connectAndClose(Wire&, const Door&) {
}

void askAndClose(Wire& wire, const Door& door) {
  wire.send(bootstrap(0) + call(1, door, door.endlessMethod) + call(2, door, kInfo));
}

constexpr std::array kFloods = {
    Flood{"info-storm", infoStorm, End::kKept, End::kCut, 16},
    Flood{"info-and-never-read", infoAndNeverRead, End::kKept, End::kCut, 64},
    Flood{"watch-and-never-read", watchAndNeverRead, End::kKept, End::kCut, 16},
    Flood{"consoles-and-never-read", consolesAndNeverRead, End::kKept, End::kCut, 8},
    Flood{"consoles-again-and-again", consolesAgainAndAgain, End::kKept, End::kCut, 8},
    Flood{"descriptors", descriptors, End::kKept, End::kCut, 8},
    Flood{"urgent-data", urgentData, End::kKept, End::kCut, 8},
    Flood{"half-open", halfOpen, End::kKept, End::kCut, 100},
    Flood{"bootstrap-alone", bootstrapAlone, End::kKept, End::kCut, 100},
    Flood{"connect-and-close", connectAndClose, End::kKept, End::kCut, 50},
    Flood{"ask-and-close", askAndClose, End::kKept, End::kCut, 50},
};

}  // namespace

std::span<const Flood> controlFloods() {
  return kFloods;
}

const Flood* findFlood(std::string_view name) {
  for (const auto& floods : {answerFloods(), nonsenseFloods(), malformedFloods(), controlFloods()}) {
    for (const Flood& flood : floods) {
      if (flood.name == name) {
        return &flood;
      }
    }
  }
  return nullptr;
}

}  // namespace vmmhost::hostile
