// A guest's packets to the vsock device, between clients and services of the host that do as they like: all
// connections, without queues and threads.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/virtio/vsock/mux.h"

using namespace vmmhost;
using namespace vmmhost::kvm::virtio::vsock;

namespace {

constexpr std::uint64_t kCid = 3;
constexpr std::size_t kMaxFar = 32;

// Watches sockets as an edge-triggered epoll does, when it is told to look.
class Thread final : public Mux::Surroundings {
 public:
  void watch(int descriptor, kvm::io::EventThread::Source& source) noexcept override {
    watched_[descriptor] = {&source, false};
  }
  void watchRoom(int descriptor, bool isWatched, kvm::io::EventThread::Source&) noexcept override {
    watched_[descriptor].room = isWatched;
  }
  void unwatch(int descriptor, const kvm::io::EventThread::Source&) noexcept override {
    fuzz::require(watched_.erase(descriptor) == 1, "what is unwatched was watched");
  }
  void arm(Clock::time_point) noexcept override {}
  bool askHost(const Ticket& ticket, std::uint32_t) noexcept override {
    tickets.push_back(ticket);
    return tickets.size() < 16;
  }
  void socketsChanged() noexcept override {}

  void look() {
    std::vector<pollfd> all;
    for (const auto& [descriptor, watched] : watched_) {
      all.push_back({descriptor, static_cast<short>(POLLIN | POLLRDHUP | (watched.room ? POLLOUT : 0)), 0});
    }
    ::poll(all.data(), all.size(), 0);
    for (const pollfd& one : all) {
      const auto found = watched_.find(one.fd);
      if (one.revents != 0 && found != watched_.end()) {
        found->second.source->ready(static_cast<std::uint32_t>(one.revents));
      }
    }
  }

  std::vector<Ticket> tickets;

 private:
  struct Watched {
    kvm::io::EventThread::Source* source = nullptr;
    bool room = false;
  };
  std::map<int, Watched> watched_;
};

class Machine {
 public:
  explicit Machine(FuzzedDataProvider& input) : input_(input), mux_(thread_, kCid, limits()) {}
  ~Machine() { mux_.clear(); }

  void run() {
    while (input_.remaining_bytes() > 0) {
      step();
      fuzz::require(mux_.connections() <= limits().maxConnections, "connections are bounded");
    }
    while (mux_.hasOutput()) {
      fill(4096, 8);
    }
    mux_.clear();
    fuzz::require(mux_.connections() == 0 && !mux_.hasOutput(), "nothing is left");
  }

 private:
  static Limits limits() {
    Limits limits;
    limits.maxConnections = 12;
    limits.maxAsking = 4;
    limits.maxResets = 8;
    limits.largestShare = 1024;
    limits.smallestShare = 64;
    limits.allShares = 4096;
    return limits;
  }

  void step() {
    switch (input_.ConsumeIntegralInRange(0, 8)) {
      case 0:
      case 1:
        packet();
        break;
      case 2:
        mux_.connectToGuest(newSocket(), input_.ConsumeIntegralInRange(0U, 3U));
        break;
      case 3:
        if (!thread_.tickets.empty()) {
          const Ticket ticket = thread_.tickets.back();
          thread_.tickets.pop_back();
          mux_.hostAnswered(ticket, input_.ConsumeBool() ? newSocket() : Fd());
        }
        break;
      case 4:
        far();
        break;
      case 5:
      case 6:
        fill(input_.ConsumeIntegralInRange<std::size_t>(kHeaderBytes + 1, 300),
             input_.ConsumeIntegralInRange<std::size_t>(1, 4));
        break;
      case 7:
        thread_.look();
        break;
      default:
        mux_.expire(Clock::now() + std::chrono::hours(input_.ConsumeBool() ? 1 : 0));
        break;
    }
  }

  void packet() {
    if (mux_.isStopped()) {
      return;
    }
    Header header;
    header.sourceCid = input_.ConsumeIntegralInRange(0, 20) == 0 ? input_.ConsumeIntegral<std::uint64_t>() : kCid;
    header.destinationCid = kHostCid;
    header.sourcePort = input_.ConsumeIntegralInRange(0U, 3U);
    header.destinationPort = input_.ConsumeBool() ? 80 : (1U << 30) + input_.ConsumeIntegralInRange(0U, 12U);
    header.type = input_.ConsumeIntegralInRange(0, 20) == 0 ? 2 : kTypeStream;
    header.operation = static_cast<Operation>(input_.ConsumeIntegralInRange(0, 8));
    header.flags = input_.ConsumeIntegralInRange(0U, 4U);
    header.bufferAllocation = input_.ConsumeBool() ? 512 : input_.ConsumeIntegral<std::uint32_t>();
    header.forwardCount = input_.ConsumeBool() ? 0 : input_.ConsumeIntegral<std::uint32_t>();
    std::string payload = input_.ConsumeRandomLengthString(700);
    header.length =
        input_.ConsumeBool() ? static_cast<std::uint32_t>(payload.size()) : input_.ConsumeIntegral<std::uint32_t>();
    const std::size_t split = payload.size() / 3;
    const iovec pieces[] = {{payload.data(), split}, {payload.data() + split, payload.size() - split}};
    mux_.receive(header, pieces, payload.size());
  }

  Fd newSocket() {
    int ends[2];
    fuzz::require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0, "a socket");
    if (input_.ConsumeBool()) {
      // Soon full.
      const int small = 1;
      ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    }
    far_.emplace_back(ends[1]);
    if (far_.size() > kMaxFar) {
      far_.erase(far_.begin());
    }
    return Fd(ends[0]);
  }

  void far() {
    if (far_.empty()) {
      return;
    }
    const std::size_t index = input_.ConsumeIntegralInRange<std::size_t>(0, far_.size() - 1);
    const int socket = far_[index].get();
    std::uint8_t bytes[1024] = {};
    switch (input_.ConsumeIntegralInRange(0, 5)) {
      case 0:
        ::shutdown(socket, SHUT_RD);
        break;
      case 1:
        ::shutdown(socket, SHUT_WR);
        break;
      case 2:
        far_.erase(far_.begin() + static_cast<std::ptrdiff_t>(index));
        break;
      case 3:
        ::recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
        break;
      default:
        ::send(socket, bytes, input_.ConsumeIntegralInRange<std::size_t>(0, sizeof bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    }
  }

  void fill(std::size_t bytes, std::size_t count) {
    std::vector<std::vector<std::uint8_t>> memory(count, std::vector<std::uint8_t>(bytes));
    std::vector<iovec> pieces;
    for (auto& one : memory) {
      pieces.push_back({one.data(), one.size()});
    }
    std::vector<Buffer> buffers;
    for (const iovec& piece : pieces) {
      buffers.push_back({{&piece, 1}, bytes, 0});
    }
    const std::size_t filled = mux_.fill(buffers);
    fuzz::require(filled <= count, "no more buffers than there are");
    for (std::size_t i = 0; i < filled; ++i) {
      fuzz::require(buffers[i].used >= kHeaderBytes && buffers[i].used <= bytes, "a packet fits its buffer");
      HeaderBytes head;
      std::memcpy(head.data(), memory[i].data(), head.size());
      const Header header = parseHeader(head);
      fuzz::require(header.length == buffers[i].used - kHeaderBytes, "a packet is as long as it says");
      fuzz::require(header.sourceCid == kHostCid && header.destinationCid == kCid, "a packet is for the guest");
      fuzz::require(header.operation >= Operation::kRequest && header.operation <= Operation::kCreditRequest,
                    "an operation that there is");
      fuzz::require(header.length == 0 || header.operation == Operation::kReadWrite, "data is data");
    }
  }

  FuzzedDataProvider& input_;
  Thread thread_;
  Mux mux_;
  std::vector<Fd> far_;
};

void header(const std::uint8_t* data, std::size_t size) {
  HeaderBytes bytes{};
  std::memcpy(bytes.data(), data, std::min(size, bytes.size()));
  fuzz::require(formatHeader(parseHeader(bytes)) == bytes, "a header is what it was");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ::signal(SIGPIPE, SIG_IGN);  // as the event loop of a worker does
  header(data, size);
  FuzzedDataProvider input(data, size);
  Machine(input).run();
  return 0;
}
