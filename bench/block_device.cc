// 4 KiB random reads from a disk of worker-kvm, as its driver sees them but without a guest: the driver's side of the
// queue in this process, notifications and interrupts through eventfds. Rings beside system calls, interleaved in one
// run, at depths 1 and 32: operations a second and processor time of the device's thread for each.
//
//   bench-block-device [FOLDER...]     files are made there; default: /dev/shm and the folder for temporary files
#include "worker-kvm/virtio/block/block_device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <random>

#include "bench/samples.h"

namespace {

using namespace vmmhost;
using namespace vmmhost::kvm;
using virtio::block::BlockDevice;
using virtio::block::BlockOptions;

constexpr std::uint64_t kFileBytes = 256 << 20;
constexpr std::uint32_t kReadBytes = 4096;
constexpr std::uint16_t kQueueSize = 256;
constexpr int kRounds = 7;
constexpr double kRoundSeconds = 0.4;

constexpr std::uint64_t kDescriptors = 0x10000;
constexpr std::uint64_t kAvailable = 0x18000;
constexpr std::uint64_t kUsed = 0x1c000;
constexpr std::uint64_t kRequests = 0x100000;  // 8 KiB each: header, status, then a page of data
constexpr std::uint64_t kRequestBytes = 8192;

double seconds(clockid_t clock) {
  timespec time = {};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

class EventInterrupts final : public virtio::Interrupts {
 public:
  void queueUsed(std::uint16_t) noexcept override { event_.signal(); }
  void configChanged() noexcept override {}
  void deviceBroken(const char* reason) noexcept override {
    std::fprintf(stderr, "broken: %s\n", reason);
    std::abort();
  }
  std::vector<int> descriptors() const override { return {event_.descriptor()}; }
  void wait() const {
    pollfd event{event_.descriptor(), POLLIN, 0};
    ::poll(&event, 1, -1);
    event_.drain();
  }

 private:
  threads::Wake event_;
};

// A driver with event indexes, one request a slot.
class Driver {
 public:
  explicit Driver(BlockDevice& device, const EventInterrupts& interrupts)
      : device_(device), interrupts_(interrupts), memory_(std::vector<memory::Range>{{0, 16 << 20}}) {
    const virtio::QueueLayout layout{kQueueSize, kDescriptors, kAvailable, kUsed, true, false};
    virtio::Activation activation;
    activation.features = device.features();
    activation.queues.push_back(virtio::ActiveQueue{0, *virtio::Queue::make(memory_, layout), kick_.descriptor()});
    device.activate(std::move(activation));
  }
  ~Driver() {
    std::promise<void> done;
    device_.deactivate([&done] { done.set_value(); });
    done.get_future().wait();
  }

  // Reads at this depth for a while; reads carried out.
  std::uint64_t run(unsigned depth, double forSeconds) {
    const double end = seconds(CLOCK_MONOTONIC) + forSeconds;
    std::uint64_t done = 0;
    for (unsigned slot = 0; slot < depth; ++slot) {
      offer(slot);
    }
    publish();
    unsigned underWay = depth;
    while (underWay != 0) {
      const bool isOver = seconds(CLOCK_MONOTONIC) >= end;
      unsigned got = 0;
      while (seen_ != load(kUsed + 2)) {
        const auto head = get<std::uint32_t>(kUsed + 4 + 8 * (seen_ % kQueueSize));
        ++seen_;
        ++got;
        if (!isOver) {
          offer(head / 3);
        } else {
          --underWay;
        }
      }
      done += got;
      if (got != 0) {
        publish();
        continue;
      }
      // As Linux's driver asks for interrupts: for the next one, then looks again.
      store(kAvailable + 4 + 2 * kQueueSize, seen_);
      if (seen_ == load(kUsed + 2)) {
        interrupts_.wait();
      }
    }
    return done;
  }

 private:
  template <typename Value>
  void put(std::uint64_t address, Value value) {
    std::memcpy(memory_.regions()[0].host.data() + address, &value, sizeof value);
  }
  template <typename Value>
  Value get(std::uint64_t address) const {
    Value value;
    std::memcpy(&value, memory_.regions()[0].host.data() + address, sizeof value);
    return value;
  }
  std::atomic_ref<std::uint16_t> word(std::uint64_t address) const {
    return std::atomic_ref(*reinterpret_cast<std::uint16_t*>(memory_.regions()[0].host.data() + address));
  }
  std::uint16_t load(std::uint64_t address) const { return word(address).load(); }
  void store(std::uint64_t address, std::uint16_t value) { word(address).store(value); }

  void offer(unsigned slot) {
    const std::uint64_t request = kRequests + slot * kRequestBytes;
    put<std::uint32_t>(request, 0);
    put<std::uint64_t>(request + 8, random_() % (kFileBytes / kReadBytes) * (kReadBytes / 512));
    const std::uint64_t addresses[] = {request, request + 4096, request + 16};
    const std::uint32_t lengths[] = {16, kReadBytes, 1};
    const auto head = static_cast<std::uint16_t>(3 * slot);
    for (std::uint16_t i = 0; i < 3; ++i) {
      const std::uint64_t at = kDescriptors + 16 * std::uint64_t{static_cast<std::uint16_t>(head + i)};
      put(at, addresses[i]);
      put(at + 8, lengths[i]);
      put<std::uint16_t>(at + 12, static_cast<std::uint16_t>((i < 2 ? 1 : 0) | (i > 0 ? 2 : 0)));
      put<std::uint16_t>(at + 14, static_cast<std::uint16_t>(head + i + 1));
    }
    put<std::uint16_t>(kAvailable + 4 + 2 * (available_ % kQueueSize), head);
    ++available_;
  }
  void publish() {
    const std::uint16_t before = load(kAvailable + 2);
    store(kAvailable + 2, available_);
    const std::uint16_t wanted = load(kUsed + 4 + 8 * kQueueSize);
    if (static_cast<std::uint16_t>(available_ - wanted - 1) < static_cast<std::uint16_t>(available_ - before)) {
      kick_.signal();
    }
  }

  BlockDevice& device_;
  const EventInterrupts& interrupts_;
  memory::GuestMemory memory_;
  threads::Wake kick_;
  std::mt19937 random_{1};
  std::uint16_t available_ = 0;
  std::uint16_t seen_ = 0;
};

struct Bench {
  EventInterrupts interrupts;
  std::unique_ptr<BlockDevice> device;
  std::vector<double> rates[2];
  std::vector<double> costs[2];  // microseconds of processor time of the whole process for each
};

std::unique_ptr<Bench> make(const std::string& folder, bool withRing, bool direct) {
  BlockOptions options;
  options.name = "disk";
  options.cache = direct ? virtio::block::Cache::kDirect : virtio::block::Cache::kWriteback;
  const int file = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_NONBLOCK, 0600);
  if (file < 0) {
    return nullptr;
  }
  options.file.reset(file);
  const std::vector<char> block(1 << 20, 'x');
  for (std::uint64_t at = 0; at < kFileBytes; at += block.size()) {
    if (::pwrite(file, block.data(), block.size(), static_cast<off_t>(at)) < 0) {
      return nullptr;
    }
  }
  if (direct) {
    ::fdatasync(file);
    options.file.reset(
        ::open(("/proc/self/fd/" + std::to_string(file)).c_str(), O_RDWR | O_CLOEXEC | O_DIRECT | O_NONBLOCK));
    if (!options.file) {
      return nullptr;
    }
  }
  if (withRing) {
    options.rings.push_back(rings::make());
    if (!options.rings[0].descriptor) {
      return nullptr;
    }
  }
  auto bench = std::make_unique<Bench>();
  bench->device = std::make_unique<BlockDevice>(std::move(options));
  bench->device->connect(bench->interrupts);
  return bench;
}

void measure(const std::string& folder, bool direct) {
  std::unique_ptr<Bench> benches[] = {make(folder, true, direct), make(folder, false, direct)};
  if (!benches[0] || !benches[1]) {
    std::printf("%s%s: not here\n", folder.c_str(), direct ? ", past the page cache" : "");
    return;
  }
  constexpr unsigned kDepths[] = {1, 32};
  for (int round = 0; round < kRounds; ++round) {
    for (auto& bench : benches) {
      Driver driver(*bench->device, bench->interrupts);
      for (int i = 0; i < 2; ++i) {
        const double begin = seconds(CLOCK_MONOTONIC);
        const double used = seconds(CLOCK_PROCESS_CPUTIME_ID);
        const auto count = static_cast<double>(driver.run(kDepths[i], kRoundSeconds));
        bench->rates[i].push_back(count / (seconds(CLOCK_MONOTONIC) - begin));
        bench->costs[i].push_back((seconds(CLOCK_PROCESS_CPUTIME_ID) - used) * 1e6 / count);
      }
    }
  }
  for (int i = 0; i < 2; ++i) {
    const double ring = bench::median(benches[0]->rates[i]);
    const double calls = bench::median(benches[1]->rates[i]);
    std::printf("%-10s %-8s depth %2u: ring %8.0f/s (%5.1f us CPU), calls %8.0f/s (%5.1f us CPU), ratio %.2f\n",
                folder.c_str(), direct ? "direct" : "cached", kDepths[i], ring, bench::median(benches[0]->costs[i]),
                calls, bench::median(benches[1]->costs[i]), ring / calls);
  }
}

}  // namespace

int main(int argc, char** argv) {
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  std::vector<std::string> folders(argv + 1, argv + argc);
  if (folders.empty()) {
    folders = {"/dev/shm", std::filesystem::temp_directory_path().string()};
  }
  bench::printMachine();
  for (const std::string& folder : folders) {
    measure(folder, false);
    measure(folder, true);
  }
  return 0;
}
