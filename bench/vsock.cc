// The vsock device between a driver that runs in this process, without a virtual machine, and a client of the host:
// round trip and throughput, beside a plain socket pair between two threads, interleaved in one run. What a guest's
// kernel, exits and interrupts cost comes on top.
//
//   bench-vsock [ROUNDS]
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <cstdlib>
#include <functional>
#include <thread>

#include "bench/samples.h"
#include "worker-kvm/virtio/vsock/test_guest.h"

namespace {

using namespace vmmhost;
using namespace vmmhost::kvm::virtio::vsock;
using namespace vmmhost::kvm::virtio::vsock::test;

constexpr int kTrips = 5000;
constexpr std::size_t kTripBytes = 64;
constexpr std::size_t kStreamBytes = std::size_t{256} << 20;
constexpr std::size_t kChunk = 256 * 1024;

double seconds(clockid_t clock) {
  timespec time = {};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

struct Result {
  double wall = 0;
  double processor = 0;  // of all threads
};
Result measure(const std::function<void()>& near, const std::function<void()>& far) {
  const double wall = seconds(CLOCK_MONOTONIC);
  const double processor = seconds(CLOCK_PROCESS_CPUTIME_ID);
  std::thread other(far);
  near();
  other.join();
  return {seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - processor};
}

void pingPong(const Fd& socket, bool isFirst) {
  char bytes[kTripBytes] = {};
  for (int i = 0; i < kTrips; ++i) {
    if (isFirst) {
      writeAll(socket, {bytes, sizeof bytes});
    }
    readBytesOf(socket, sizeof bytes);
    if (!isFirst) {
      writeAll(socket, {bytes, sizeof bytes});
    }
  }
}
void writeMuch(const Fd& socket) {
  const std::string chunk(kChunk, 'x');
  for (std::size_t at = 0; at < kStreamBytes; at += kChunk) {
    writeAll(socket, chunk);
  }
}
void readMuch(const Fd& socket) {
  std::string chunk(kChunk, '\0');
  for (std::size_t at = 0; at < kStreamBytes;) {
    const ssize_t count = ::recv(socket.get(), chunk.data(), chunk.size(), 0);
    if (count <= 0) {
      std::abort();
    }
    at += static_cast<std::size_t>(count);
  }
}

// VsockTest without its test.
class Bench final : public VsockTest {
 public:
  Bench() {
    buffers_ = 128;
    make();
  }
  void TestBody() override {}

  Result roundTrip() {
    Client client = connectClient(5000);
    const Result result = measure(
        [&] {
          for (int i = 0; i < kTrips; ++i) {
            const Packet packet = guest().receive();
            client.stream.note(packet);
            client.stream.write(packet.payload);
          }
        },
        [&] { pingPong(client.socket, true); });
    end(client);
    return result;
  }
  Result fromHost() {
    Client client = connectClient(5000);
    const Result result = measure(
        [&] {
          std::uint32_t reported = 0;
          for (std::size_t have = 0; have < kStreamBytes;) {
            const Packet packet = guest().receive(true, false);
            client.stream.note(packet);
            have += packet.header.length;
            if (client.stream.frame().forwardCount - reported >= Stream::kAllocation / 4) {
              reported = client.stream.frame().forwardCount;
              client.stream.send(Operation::kCreditUpdate);
            }
          }
        },
        [&] { writeMuch(client.socket); });
    end(client);
    return result;
  }
  Result fromGuest() {
    Client client = connectClient(5000);
    const std::string chunk(64 * 1024, 'x');
    const Result result = measure(
        [&] {
          for (std::size_t sent = 0; sent < kStreamBytes;) {
            while (client.stream.credit() == 0 || guest().hasPacket()) {
              client.stream.note(guest().receive());
            }
            const std::size_t count = std::min<std::size_t>(chunk.size(), client.stream.credit());
            client.stream.write({chunk.data(), count});
            sent += count;
          }
        },
        [&] { readMuch(client.socket); });
    end(client);
    return result;
  }

 private:
  void end(Client& client) {
    client.stream.send(Operation::kReset);
    while (guest().hasPacket()) {
      guest().receive();
    }
    guest().expectSilence();
  }
};

struct Series {
  std::vector<double> wall, processor;
  void add(const Result& result) {
    wall.push_back(result.wall);
    processor.push_back(result.processor);
  }
};

void print(const char* what, const Series& device, const Series& plain, double scale, const char* unit, bool inverse) {
  const auto shown = [&](double value) { return inverse ? scale / value : value * scale; };
  std::printf("%-28s %9.1f %s   plain socket pair %9.1f   ratio %.2f   processor per wall %.2f (plain %.2f)\n", what,
              shown(bench::median(device.wall)), unit, shown(bench::median(plain.wall)),
              shown(bench::median(device.wall)) / shown(bench::median(plain.wall)),
              bench::median(device.processor) / bench::median(device.wall),
              bench::median(plain.processor) / bench::median(plain.wall));
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  bench::printMachine();
  Bench bench;
  Series trip, plainTrip, in, out, plainStream;
  for (int round = 0; round < rounds; ++round) {
    trip.add(bench.roundTrip());
    Pair pair = makePair();
    ::fcntl(pair.near.get(), F_SETFL, 0);
    plainTrip.add(measure([&] { pingPong(pair.near, false); }, [&] { pingPong(pair.far, true); }));
    in.add(bench.fromHost());
    plainStream.add(measure([&] { readMuch(pair.near); }, [&] { writeMuch(pair.far); }));
    out.add(bench.fromGuest());
  }
  print("round trip of 64 bytes", trip, plainTrip, 1e6 / kTrips, "us", false);
  constexpr double kMebibytes = static_cast<double>(kStreamBytes) / (1 << 20);
  print("host to guest, 4 KiB buffers", in, plainStream, kMebibytes, "MiB/s", true);
  print("guest to host, 64 KiB", out, plainStream, kMebibytes, "MiB/s", true);
  return 0;
}
