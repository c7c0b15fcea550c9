// A driver of a vsock device and a host around it, for tests. Header only.
#pragma once

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker-kvm/virtio/features.h"
#include "worker-kvm/virtio/test_driver.h"
#include "worker-kvm/virtio/vsock/device.h"

namespace vmmhost::kvm::virtio::vsock::test {

using virtio::test::Driver;
using virtio::test::kDeadline;

inline constexpr std::uint64_t kCid = 7;

struct Pair {
  Fd near;  // for the device
  Fd far;   // of whoever talks to it; blocks, and gives up after kDeadline
};
inline Pair makePair() {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  EXPECT_EQ(::fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
  const timeval limit = {std::chrono::seconds(kDeadline).count(), 0};
  ::setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(ends[1], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return {Fd(ends[0]), Fd(ends[1])};
}

inline void writeAll(const Fd& socket, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL);
    ASSERT_GT(count, 0) << std::strerror(errno);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}
// Bytes that tell where they belong.
inline std::string patternOf(std::size_t from, std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) {
    const std::uint64_t at = from + i;
    text[i] = static_cast<char>((at * 0x9e3779b97f4a7c15) >> 56);
  }
  return text;
}

// As many bytes, or fewer if the end comes before.
inline std::string readBytesOf(const Fd& socket, std::size_t bytes) {
  std::string text(bytes, '\0');
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t count = ::recv(socket.get(), text.data() + have, bytes - have, 0);
    EXPECT_GE(count, 0) << std::strerror(errno);
    if (count <= 0) {
      break;
    }
    have += static_cast<std::size_t>(count);
  }
  text.resize(have);
  return text;
}
inline std::string readToEnd(const Fd& socket) {
  return readBytesOf(socket, 1 << 20);
}

// Keeps what the guest asks the host for; the test answers.
class AskedHost final : public HostConnector {
 public:
  struct Question {
    Ticket ticket;
    std::uint32_t port = 0;
  };
  bool ask(Vsock&, const Ticket& ticket, std::uint32_t port) noexcept override {
    const std::lock_guard lock(mutex_);
    if (isBusy_) {
      return false;
    }
    questions_.push_back({ticket, port});
    asked_.notify_all();
    return true;
  }
  std::vector<int> descriptors() const override { return {}; }

  Question next() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(asked_.wait_for(lock, kDeadline, [this] { return !questions_.empty(); })) << "nobody asked";
    if (questions_.empty()) {
      return {};
    }
    const Question question = questions_.front();
    questions_.pop_front();
    return question;
  }
  void setBusy(bool isBusy) {
    const std::lock_guard lock(mutex_);
    isBusy_ = isBusy;
  }

 private:
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<Question> questions_;
  bool isBusy_ = false;
};

struct Packet {
  Header header;
  std::string payload;
};

// The guest's side of the queues.
class Guest {
 public:
  static constexpr std::uint16_t kQueueSize = 256;
  static constexpr std::uint32_t kDefaultBuffers = 64;
  static constexpr std::uint32_t kPayloadBytes = 4096;  // of a receive buffer, as Linux has them

  Guest(Driver& driver, Vsock& device, std::uint64_t features = kEventIdx, std::uint32_t buffers = kDefaultBuffers)
      : driver_(driver), device_(device), features_(features), buffers_(buffers) {
    start();
  }
  void start() {
    driver_.start(device_, features_, kQueueSize);
    underWay_ = 0;
    nextSlot_ = 0;
    for (std::uint32_t slot = 0; slot < buffers_; ++slot) {
      offerBuffer(slot);
    }
    notifyReceive();
  }

  // A buffer for one packet in two pieces, as Linux makes them.
  void offerBuffer(std::uint32_t slot) {
    const std::uint64_t at = Driver::kData + std::uint64_t{slot} * kBufferStride;
    const auto head = driver_.queue(0).offer({{at, kHeaderBytes, true}, {at + kHeaderBytes, kPayloadBytes, true}});
    slots_[head] = slot;
  }
  void notifyReceive() { driver_.queue(0).notifyIfWanted(); }

  void send(const Header& header, std::string_view payload = {}) {
    const HeaderBytes bytes = formatHeader(header);
    sendRaw(std::string(bytes.begin(), bytes.end()), payload);
  }
  void sendRaw(std::string_view head, std::string_view payload = {}) {
    if (underWay_ == kSendSlots) {
      driver_.queue(1).nextUsed(driver_.interrupts());
      --underWay_;
    }
    const std::uint64_t at = Driver::kData + kSendArea + std::uint64_t{nextSlot_} * kSendStride;
    nextSlot_ = (nextSlot_ + 1) % kSendSlots;
    put(at, head);
    put(at + head.size(), payload);
    std::vector<virtio::test::Part> parts = {{at, static_cast<std::uint32_t>(head.size()), false}};
    if (!payload.empty()) {
      parts.push_back({at + head.size(), static_cast<std::uint32_t>(payload.size()), false});
    }
    driver_.queue(1).offer(parts);
    ++underWay_;
    driver_.queue(1).notifyIfWanted();
  }
  // All that was sent has been taken.
  void waitForSent() {
    for (; underWay_ > 0; --underWay_) {
      driver_.queue(1).nextUsed(driver_.interrupts());
    }
  }

  bool hasPacket() const { return driver_.queue(0).hasUsed(); }
  // The next packet; its buffer is offered again, or kept. Without a look at its payload where that is not wanted.
  Packet receive(bool offersAgain = true, bool wantsPayload = true) {
    const auto used = driver_.queue(0).nextUsed(driver_.interrupts());
    const std::uint32_t slot = slots_[used.head % kQueueSize];
    const auto data = driver_.data(std::uint64_t{slot} * kBufferStride, kBufferStride);
    EXPECT_GE(used.bytes, kHeaderBytes);
    Packet packet;
    HeaderBytes head;
    std::copy_n(data.begin(), kHeaderBytes, head.begin());
    packet.header = parseHeader(head);
    EXPECT_EQ(packet.header.length, used.bytes - kHeaderBytes);
    if (wantsPayload) {
      packet.payload.assign(reinterpret_cast<const char*>(data.data()) + kHeaderBytes, used.bytes - kHeaderBytes);
    }
    EXPECT_EQ(packet.header.sourceCid, kHostCid);
    EXPECT_EQ(packet.header.destinationCid, kCid);
    if (offersAgain) {
      offerBuffer(slot);
      notifyReceive();
    }
    return packet;
  }
  Packet expect(Operation operation) {
    Packet packet = receive();
    EXPECT_EQ(packet.header.operation, operation);
    return packet;
  }
  // What was sent before has no answer: what is sent now has, and nothing came in between.
  void expectSilence() {
    Header probe;
    probe.sourceCid = kCid;
    probe.destinationCid = kHostCid;
    probe.sourcePort = 0xdead;
    probe.destinationPort = 0xbeef;
    probe.operation = Operation::kCreditRequest;
    send(probe);
    EXPECT_EQ(expect(Operation::kReset).header.destinationPort, 0xdeadu);
  }

 private:
  static constexpr std::uint64_t kBufferStride = 8192;
  static constexpr std::uint64_t kSendArea = std::uint64_t{16} << 20;
  static constexpr std::uint64_t kSendStride = 80 * 1024;
  static constexpr unsigned kSendSlots = 32;

  void put(std::uint64_t at, std::string_view text) {
    const auto target = driver_.memory().require(at, text.size(), "test");
    std::copy(text.begin(), text.end(), target.begin());
  }

  Driver& driver_;
  Vsock& device_;
  std::uint64_t features_;
  std::uint32_t buffers_;
  unsigned underWay_ = 0;
  unsigned nextSlot_ = 0;
  std::uint32_t slots_[kQueueSize] = {};
};

// A connection as a guest that does everything right has it.
class Stream {
 public:
  static constexpr std::uint32_t kAllocation = 256 * 1024;

  Stream(Guest& guest, std::uint32_t guestPort, std::uint32_t hostPort) : guest_(guest) {
    frame_.sourceCid = kCid;
    frame_.destinationCid = kHostCid;
    frame_.sourcePort = guestPort;
    frame_.destinationPort = hostPort;
    frame_.bufferAllocation = kAllocation;
  }

  Header& frame() { return frame_; }
  std::uint32_t hostPort() const { return frame_.destinationPort; }
  std::uint32_t guestPort() const { return frame_.sourcePort; }
  bool isMine(const Header& header) const {
    return header.sourcePort == frame_.destinationPort && header.destinationPort == frame_.sourcePort;
  }

  void send(Operation operation, std::uint32_t flags = 0) {
    Header header = frame_;
    header.operation = operation;
    header.flags = flags;
    guest_.send(header);
  }
  // Without looking at credit.
  void write(std::string_view text) {
    Header header = frame_;
    header.operation = Operation::kReadWrite;
    header.length = static_cast<std::uint32_t>(text.size());
    sent_ += header.length;
    guest_.send(header, text);
  }
  std::uint32_t credit() const { return peerAllocation_ - (sent_ - peerForwarded_); }
  std::uint32_t peerAllocation() const { return peerAllocation_; }
  // Takes a packet of this connection into account; data that came counts as read at once.
  void note(const Packet& packet) {
    EXPECT_TRUE(isMine(packet.header));
    peerAllocation_ = packet.header.bufferAllocation;
    peerForwarded_ = packet.header.forwardCount;
    frame_.forwardCount += packet.header.length;
  }
  Packet expect(Operation operation) {
    Packet packet = guest_.expect(operation);
    note(packet);
    return packet;
  }
  // Data in as many packets as it takes; reports credit now and then.
  std::string read(std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) {
      const Packet packet = guest_.receive();
      note(packet);
      text += packet.payload;
      if (packet.header.operation == Operation::kCreditRequest || frame_.forwardCount - reported_ >= kAllocation / 4) {
        reported_ = frame_.forwardCount;
        send(Operation::kCreditUpdate);
      }
      if (packet.header.operation == Operation::kShutdown || packet.header.operation == Operation::kReset) {
        ADD_FAILURE() << "the connection ended";
        break;
      }
    }
    return text;
  }

 private:
  Guest& guest_;
  Header frame_;
  std::uint32_t sent_ = 0;
  std::uint32_t peerAllocation_ = 0;
  std::uint32_t peerForwarded_ = 0;
  std::uint32_t reported_ = 0;
};

// A device with its driver and host.
class VsockTest : public ::testing::Test {
 protected:
  VsockTest() : driver_(3) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    rlimit limit = {};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    options_.guestCid = kCid;
    options_.limits.maxConnections = 128;
    options_.firstDescriptor = 512;
  }
  ~VsockTest() override {
    if (device_) {
      driver_.stop();
    }
  }

  void make() {
    device_.emplace(options_, host_);
    device_->connect(driver_.interrupts());
    guest_.emplace(driver_, *device_, features_, buffers_);
  }
  Guest& guest() { return *guest_; }

  // A client of the host that the guest has accepted.
  struct Client {
    Stream stream;
    Fd socket;
  };
  Client connectClient(std::uint32_t guestPort) {
    Pair pair = makePair();
    device_->connectToGuest(std::move(pair.near), guestPort);
    const Packet request = guest().expect(Operation::kRequest);
    EXPECT_EQ(request.header.destinationPort, guestPort);
    Stream stream(guest(), guestPort, request.header.sourcePort);
    stream.note(request);
    stream.send(Operation::kResponse);
    const std::string line = "OK " + std::to_string(request.header.sourcePort) + "\n";
    EXPECT_EQ(readBytesOf(pair.far, line.size()), line);
    return {stream, std::move(pair.far)};
  }
  // The guest has connected to a service of the host.
  Client connectService(std::uint32_t guestPort, std::uint32_t hostPort) {
    Stream stream(guest(), guestPort, hostPort);
    stream.send(Operation::kRequest);
    const AskedHost::Question question = host_.next();
    EXPECT_EQ(question.port, hostPort);
    Pair pair = makePair();
    device_->hostAnswered(question.ticket, std::move(pair.near));
    stream.expect(Operation::kResponse);
    return {stream, std::move(pair.far)};
  }

  Driver driver_;
  AskedHost host_;
  Options options_;
  std::uint64_t features_ = kEventIdx;
  std::uint32_t buffers_ = Guest::kDefaultBuffers;
  std::optional<Vsock> device_;
  std::optional<Guest> guest_;
};

}  // namespace vmmhost::kvm::virtio::vsock::test
