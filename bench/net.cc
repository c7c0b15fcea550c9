// The frame path of worker-kvm's network device over TAPs, in a network namespace of its own (needs root).
//
//   bench-net [ROUNDS]
//
// First, on one thread, processor time per frame: receiving beside reading into one buffer and copying from there, and
// beside a bare read; transmitting beside a bare writev. Then two devices whose TAPs
// a bridge joins, with their threads: frames from one driver to the other.
#include "worker-kvm/virtio/net/net.h"

#include <linux/sockios.h>
#include <sys/prctl.h>
#include <time.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>

#include "bench/samples.h"
#include "worker-kvm/virtio/net/test_tap.h"

namespace {

using namespace vmmhost;
using namespace vmmhost::kvm;
using namespace vmmhost::kvm::virtio;
using namespace vmmhost::kvm::virtio::net;

constexpr std::uint16_t kSize = 256;
constexpr std::uint64_t kMemoryBytes = 64 << 20;
constexpr std::uint64_t kData = 1 << 20;
constexpr MacAddress kGuestMac{2, 0, 0, 0, 0, 1};
constexpr MacAddress kOtherMac{2, 0, 0, 0, 0, 2};

double seconds(clockid_t clock) {
  timespec time = {};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

class NoInterrupts final : public Interrupts {
 public:
  void queueUsed(std::uint16_t) noexcept override {}
  void configChanged() noexcept override {}
  void deviceBroken(const char* reason) noexcept override { std::fprintf(stderr, "broken: %s\n", reason); }
  std::vector<int> descriptors() const override { return {}; }
};

// A driver's queue whose chains are one descriptor each: descriptor i is the buffer i. Looks by itself for what was
// used.
class Ring {
 public:
  Ring(memory::GuestMemory& memory, std::uint64_t base, std::uint64_t data, std::uint32_t bufferBytes, bool writable)
      : memory_(memory), base_(base) {
    const auto area = memory.require(base, 0x10000, "bench");
    std::fill(area.begin(), area.end(), std::uint8_t{0});
    for (std::uint16_t i = 0; i < kSize; ++i) {
      put(base + 16 * i, data + std::uint64_t{i} * bufferBytes);
      put(base + 16 * i + 8, bufferBytes);
      put<std::uint16_t>(base + 16 * i + 12, writable ? 2 : 0);
    }
  }
  ActiveQueue queue(std::uint16_t index) {
    return {index, *Queue::make(memory_, {kSize, base_, base_ + kAvailable, base_ + kUsed, true, false}),
            kick_.descriptor()};
  }
  void length(std::uint16_t buffer, std::uint32_t bytes) { put(base_ + 16 * buffer + 8, bytes); }
  void offer(std::uint16_t buffer) {
    put<std::uint16_t>(base_ + kAvailable + 4 + 2 * (available_ % kSize), buffer);
    ++available_;
  }
  // Publishes what was offered, and notifies if the device asks for it.
  void publish() {
    const auto before = published_;
    published_ = available_;
    at(base_ + kAvailable + 2).store(available_, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const std::uint16_t wanted = at(base_ + kUsed + 4 + 8 * kSize).load(std::memory_order_relaxed);
    if (static_cast<std::uint16_t>(available_ - wanted - 1) < static_cast<std::uint16_t>(available_ - before)) {
      kick_.signal();
    }
  }
  // Calls back with the buffers used since the last call; their number.
  template <typename Each>
  unsigned nextUsed(Each each) {
    const std::uint16_t end = at(base_ + kUsed + 2).load(std::memory_order_acquire);
    unsigned count = 0;
    for (; seen_ != end; ++seen_, ++count) {
      std::uint32_t entry[2];
      std::memcpy(entry, memory_.require(base_ + kUsed + 4 + 8 * (seen_ % kSize), 8, "bench").data(), 8);
      each(static_cast<std::uint16_t>(entry[0]), entry[1]);
    }
    return count;
  }
  // Offers again whatever was used.
  unsigned recycle() {
    const unsigned count = nextUsed([this](std::uint16_t buffer, std::uint32_t) { offer(buffer); });
    publish();
    return count;
  }

 private:
  static constexpr std::uint64_t kAvailable = 0x4000;
  static constexpr std::uint64_t kUsed = 0x8000;

  template <typename Value>
  void put(std::uint64_t address, Value value) {
    std::memcpy(memory_.require(address, sizeof value, "bench").data(), &value, sizeof value);
  }
  std::atomic_ref<std::uint16_t> at(std::uint64_t address) {
    return std::atomic_ref<std::uint16_t>(
        *reinterpret_cast<std::uint16_t*>(memory_.require(address, 2, "bench").data()));
  }

  memory::GuestMemory& memory_;
  std::uint64_t base_;
  threads::Wake kick_;
  std::uint16_t available_ = 0;
  std::uint16_t published_ = 0;
  std::uint16_t seen_ = 0;
};

std::vector<memory::Range> oneRange() {
  return {{0, kMemoryBytes}};
}

// A header and a frame of so many bytes; above what a packet holds, one to be cut.
std::vector<std::uint8_t> headerAndFrame(const MacAddress& to, const MacAddress& from, std::size_t bytes) {
  const bool isLarge = bytes > 1514;
  const Header header =
      isLarge ? Header{kNeedsCsum, kGsoTcp4, 54, 1448, test::kTransport, test::kTcpChecksum, 0} : Header{};
  const auto frame = isLarge ? test::ipv4(to, from, "192.0.2.1", "192.0.2.2", 6, 1, 2, bytes - 54)
                             : test::ethernet(to, from, test::kTestEtherType, bytes - 14);
  std::vector<std::uint8_t> all(sizeof header + frame.size());
  std::memcpy(all.data(), &header, sizeof header);
  std::memcpy(all.data() + sizeof header, frame.data(), frame.size());
  return all;
}

// What one would write instead of Receiver: one read, one copy.
class CopyingReceiver {
 public:
  explicit CopyingReceiver(ActiveQueue queue) : queue_(std::move(queue)), frame_(kMaxFrameBytes) {}
  Turn receive(int tap) {
    for (unsigned frames = 0; frames < kFramesPerTurn; ++frames) {
      if (begun_ == 0) {
        const ssize_t got = ::read(tap, frame_.data(), frame_.size());
        if (got <= 0) {
          return Turn::kIdle;
        }
        begun_ = static_cast<std::size_t>(got);
      }
      while (done_ < begun_) {
        if (queue_.queue.fetch(chain_) != Queue::Fetched::kChain) {
          queue_.queue.enableNotifications();
          return Turn::kBlocked;
        }
        const std::size_t count = copyTo(chain_.writable, 0, std::span(frame_).subspan(done_, begun_ - done_));
        if (done_ == 0) {
          first_ = chain_.writable;
        }
        done_ += count;
        used_.push_back({chain_.head, static_cast<std::uint32_t>(count)});
      }
      const auto parts = static_cast<std::uint16_t>(used_.size());
      copyTo(first_, 10, {reinterpret_cast<const std::uint8_t*>(&parts), 2});
      queue_.queue.publishUsed(used_);
      used_.clear();
      done_ = begun_ = 0;
    }
    return Turn::kMore;
  }

 private:
  ActiveQueue queue_;
  std::vector<std::uint8_t> frame_;
  Chain chain_;
  std::vector<iovec> first_;
  std::vector<Queue::Used> used_;
  std::size_t begun_ = 0;
  std::size_t done_ = 0;
};

struct BareReceiver {
  std::vector<std::uint8_t> frame = std::vector<std::uint8_t>(kMaxFrameBytes);
  Turn receive(int tap) {
    for (unsigned frames = 0; frames < kFramesPerTurn; ++frames) {
      if (::read(tap, frame.data(), frame.size()) <= 0) {
        return Turn::kIdle;
      }
    }
    return Turn::kMore;
  }
};

constexpr unsigned kFrames = 512;

class Bench {
 public:
  explicit Bench(unsigned rounds) : rounds_(rounds), tap_("bench0"), memory_(oneRange()) {
    taps_ = tap_.takeQueues();
    const unsigned long offloads = tapOffloads(kGuestCsum | kGuestTso4);
    test::check(::ioctl(taps_[0].get(), TUNSETOFFLOAD, offloads) == 0, "TUNSETOFFLOAD");
    socket_ = tap_.packetSocket(ETH_P_IP, true);
    shared_.interrupts = &interrupts_;
  }

  void receive(std::size_t frameBytes, std::uint32_t bufferBytes) {
    constexpr std::uint64_t kFeatures = kMrgRxbuf | kGuestCsum | kGuestTso4;
    shared_.receiveFeatures = kFeatures;
    Ring direct(memory_, 0, kData, bufferBytes, true);
    Ring copying(memory_, 0x10000, kData, bufferBytes, true);
    for (std::uint16_t i = 0; i < kSize; ++i) {
      direct.offer(i);
      copying.offer(i);
    }
    direct.publish();
    copying.publish();
    Receiver receiver(shared_);
    receiver.start(direct.queue(0), kFeatures);
    CopyingReceiver copyingReceiver(copying.queue(0));
    BareReceiver bareReceiver;
    const auto frame = headerAndFrame(kGuestMac, tap_.mac(), frameBytes);
    std::vector<double> ours, copied, bare;
    for (unsigned round = 0; round < rounds_; ++round) {
      ours.push_back(drain(
          frame, [&](int tap) { return receiver.receive(tap); },
          [&] {
            direct.recycle();
            receiver.resume();
          }));
      copied.push_back(drain(
          frame, [&](int tap) { return copyingReceiver.receive(tap); }, [&] { copying.recycle(); }));
      bare.push_back(drain(
          frame, [&](int tap) { return bareReceiver.receive(tap); }, [] {}));
    }
    std::printf(
        "receive  %6zu bytes, buffers of %5u: ours %7.0f ns, copied %7.0f ns, bare read %7.0f ns; "
        "ours/copied %.2f\n",
        frameBytes, bufferBytes, bench::median(ours) * 1e9, bench::median(copied) * 1e9, bench::median(bare) * 1e9,
        bench::median(ours) / bench::median(copied));
    std::fflush(stdout);
  }

  void transmit(std::size_t frameBytes) {
    constexpr std::uint64_t kFeatures = kCsum | kHostTso4;
    const auto frame = headerAndFrame(kOtherMac, kGuestMac, frameBytes);
    constexpr std::uint32_t kBufferBytes = 65664;
    Ring ring(memory_, 0, kData, kBufferBytes, false);
    for (std::uint16_t i = 0; i < kSize; ++i) {
      memory_.write(kData + std::uint64_t{i} * kBufferBytes, frame, "bench");
      ring.length(i, static_cast<std::uint32_t>(frame.size()));
      ring.offer(i);
    }
    Transmitter transmitter(shared_);
    transmitter.start(ring.queue(1), kFeatures);
    std::vector<double> ours, bare;
    for (unsigned round = 0; round < rounds_; ++round) {
      ring.publish();
      const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
      while (transmitter.transmit(taps_[0].get()) == Turn::kMore) {
      }
      ours.push_back((seconds(CLOCK_THREAD_CPUTIME_ID) - start) / kSize);
      ring.recycle();
      const double bareStart = seconds(CLOCK_THREAD_CPUTIME_ID);
      for (std::uint16_t i = 0; i < kSize; ++i) {
        const auto place = memory_.require(kData + std::uint64_t{i} * kBufferBytes, frame.size(), "bench");
        const iovec part{place.data(), place.size()};
        [[maybe_unused]] const ssize_t written = ::writev(taps_[0].get(), &part, 1);
      }
      bare.push_back((seconds(CLOCK_THREAD_CPUTIME_ID) - bareStart) / kSize);
    }
    std::printf("transmit %6zu bytes: %7.0f ns, bare writev %7.0f ns; ratio %.2f\n", frameBytes,
                bench::median(ours) * 1e9, bench::median(bare) * 1e9, bench::median(ours) / bench::median(bare));
    std::fflush(stdout);
  }

 private:
  // Processor seconds per frame.
  template <typename Receive, typename Recycle>
  double drain(const std::vector<std::uint8_t>& frame, Receive receive, Recycle recycle) {
    for (unsigned i = 0; i < kFrames; ++i) {
      // The header of packet sockets has no numBuffers.
      iovec parts[] = {{const_cast<std::uint8_t*>(frame.data()), 10},
                       {const_cast<std::uint8_t*>(frame.data()) + 12, frame.size() - 12}};
      test::check(::writev(socket_.get(), parts, 2) > 0, "sending frames");
    }
    double spent = 0;
    while (true) {
      const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
      const Turn turn = receive(taps_[0].get());
      spent += seconds(CLOCK_THREAD_CPUTIME_ID) - start;
      if (turn == Turn::kIdle) {
        return spent / kFrames;
      }
      recycle();
    }
  }

  unsigned rounds_;
  test::TestTap tap_;
  std::vector<Fd> taps_;
  Fd socket_;
  memory::GuestMemory memory_;
  NoInterrupts interrupts_;
  Shared shared_;
};

// Two devices, a bridge between them, and one thread that is both drivers.
class Joined {
 public:
  Joined() : memory_(oneRange()) {
    const Fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    test::check(::ioctl(control.get(), SIOCBRADDBR, "bench-br") == 0, "making a bridge");
    ifreq request{};
    std::strcpy(request.ifr_name, "bench-br");
    for (const char* name : {"benchA", "benchB"}) {
      taps_.push_back(std::make_unique<test::TestTap>(name));
      request.ifr_ifindex = taps_.back()->index();
      test::check(::ioctl(control.get(), SIOCBRADDIF, &request) == 0, "joining a TAP to a bridge");
    }
    request.ifr_flags = IFF_UP;
    test::check(::ioctl(control.get(), SIOCSIFFLAGS, &request) == 0, "setting up a bridge");
    sender_ = std::make_unique<Net>(NetOptions{.name = "benchA", .mac = kGuestMac}, taps_[0]->takeQueues());
    receiver_ = std::make_unique<Net>(NetOptions{.name = "benchB", .mac = kOtherMac}, taps_[1]->takeQueues());
    sender_->connect(interrupts_);
    receiver_->connect(interrupts_);
  }

  void run(std::size_t frameBytes, std::uint64_t frames) {
    constexpr std::uint32_t kBufferBytes = 2048;
    constexpr std::uint32_t kPlaceBytes = 65664;
    Ring transmit(memory_, 0, kData + (1 << 20), kPlaceBytes, false);
    Ring receive(memory_, 0x10000, kData, kBufferBytes, true);
    const auto frame = headerAndFrame(kOtherMac, kGuestMac, frameBytes);
    for (std::uint16_t i = 0; i < kSize; ++i) {
      memory_.write(kData + (1 << 20) + std::uint64_t{i} * kPlaceBytes, frame, "bench");
      transmit.length(i, static_cast<std::uint32_t>(frame.size()));
      receive.offer(i);
    }
    receive.publish();
    constexpr std::uint64_t kFeatures =
        kEventIdx | kMrgRxbuf | kCsum | kGuestCsum | kHostTso4 | kGuestTso4 | kHostTso6 | kGuestTso6;
    start(*receiver_, receive.queue(0), 0, kFeatures);
    start(*sender_, transmit.queue(1), 1, kFeatures);

    const auto received = [&] { return receiver_->counters().receivedFrames.load(); };
    const auto lost = [&] { return receiver_->counters().receiveDropped.load(); };
    const std::uint64_t before = received();
    const std::uint64_t lostBefore = lost();
    std::uint16_t next = 0;
    std::uint64_t sent = 0, inFlight = 0, arrived = 0;
    const double start = seconds(CLOCK_MONOTONIC);
    const double senderCpu = threadSeconds("benchA"), receiverCpu = threadSeconds("benchB");
    while (arrived < frames) {
      inFlight -= transmit.nextUsed([](std::uint16_t, std::uint32_t) {});
      // No more than the TAP's queue holds: nothing is lost, and what is measured is the path.
      bool offered = false;
      while (inFlight < kSize && sent < frames && sent < arrived + 400) {
        transmit.offer(next);
        next = static_cast<std::uint16_t>((next + 1) % kSize);
        ++sent;
        ++inFlight;
        offered = true;
      }
      if (offered) {
        transmit.publish();
      }
      receive.recycle();
      const std::uint64_t now = received() - before;
      if (now == arrived && lost() != lostBefore) {
        std::fprintf(stderr, "frames were lost\n");
        break;
      }
      arrived = now;
    }
    const double took = seconds(CLOCK_MONOTONIC) - start;
    const auto perFrame = [&](double spent) { return spent * 1e9 / static_cast<double>(frames); };
    std::printf("joined   %6zu bytes: %7.0f frames/s, %6.2f Gb/s; threads: sender %6.0f, receiver %6.0f ns a frame\n",
                frameBytes, static_cast<double>(frames) / took,
                static_cast<double>(frames * frameBytes) * 8 / took / 1e9,
                perFrame(threadSeconds("benchA") - senderCpu), perFrame(threadSeconds("benchB") - receiverCpu));
    std::fflush(stdout);
    stop(*sender_);
    stop(*receiver_);
  }

 private:
  static void start(Net& net, ActiveQueue queue, std::size_t index, std::uint64_t features) {
    Activation activation;
    activation.features = features;
    activation.queues.resize(3);
    activation.queues[index] = std::move(queue);
    net.activate(std::move(activation));
  }
  static void stop(Net& net) {
    std::atomic<bool> stopped = false;
    net.deactivate([&stopped] {
      stopped = true;
      stopped.notify_one();
    });
    stopped.wait(false);
  }
  // Processor time of the thread of this name.
  static double threadSeconds(const std::string& name);

  memory::GuestMemory memory_;
  std::vector<std::unique_ptr<test::TestTap>> taps_;
  NoInterrupts interrupts_;
  std::unique_ptr<Net> sender_, receiver_;
};

double Joined::threadSeconds(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string found;
    if (std::ifstream(task.path() / "comm") >> found && found == name) {
      double nanoseconds = 0;
      std::ifstream(task.path() / "schedstat") >> nanoseconds;
      return nanoseconds / 1e9;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const unsigned rounds = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 51;
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  try {
    std::string reason;
    if (!test::enterOwnNetwork(reason)) {
      std::fprintf(stderr, "bench-net: %s\n", reason.c_str());
      return 1;
    }
    bench::printMachine();
    Bench bench(rounds);
    bench.receive(60, 1536);
    bench.receive(1514, 1536);
    bench.receive(60054, 1536);
    bench.receive(60054, 4096);
    bench.transmit(60);
    bench.transmit(1514);
    bench.transmit(60054);
    Joined joined;
    joined.run(60, 20000ULL * rounds);
    joined.run(1514, 20000ULL * rounds);
    joined.run(60054, 1000ULL * rounds);
  } catch (const Error& error) {
    std::fprintf(stderr, "bench-net: %s\n", error.message().c_str());
    return 1;
  }
  return 0;
}
