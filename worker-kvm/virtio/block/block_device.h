// A disk: the virtio block device over a file or block device of the host.
// Source: virtio 1.2, 5.2.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "vmmhost/rings.h"
#include "worker-kvm/virtio/block/blocking_thread.h"
#include "worker-kvm/virtio/block/disk_file.h"
#include "worker-kvm/virtio/block/engine.h"
#include "worker-kvm/virtio/block/protocol.h"
#include "worker-kvm/virtio/block/request.h"
#include "worker-kvm/virtio/block/request_queue.h"
#include "worker-kvm/virtio/device.h"

namespace vmmhost::kvm::virtio::block {

enum class Cache : std::uint8_t {
  kWriteback,  // the host's page cache; a flush makes everything before it durable
  kDirect,     // past the page cache: the file was opened with O_DIRECT; a flush the same
  kUnsafe      // the host's page cache; a flush does nothing
};

struct BlockOptions {
  std::string name;  // "blk0": at most 9 bytes, for threads and the log
  Fd file;           // open for reading, and for writing unless readOnly
  bool readOnly = false;
  std::string serial;  // at most 20 bytes; empty: none
  Cache cache = Cache::kWriteback;
  std::uint16_t queues = 1;  // a thread each
  // A ring for each queue, in order (worker::Resources::takeRing). A queue without one makes system calls instead.
  std::vector<rings::Ring> rings;
  // Hears of errors of the file, one line each, bounded in number. Called on the device's threads, whose filters let it
  // write to descriptor 2 and nothing else.
  std::function<void(const std::string&)> log;
  // The host's file system has no room for what the driver writes: as bounded in number, on the same threads, whose
  // filters also have the descriptors of interrupts. May be empty.
  std::function<void()> full;
};

class BlockDevice final : public Device {
 public:
  // Looks at the file, maps and registers rings. Throws Error.
  explicit BlockDevice(BlockOptions options);
  // Waits for what is under way, if the device is active.
  ~BlockDevice() override;

  std::uint16_t type() const noexcept override { return kDeviceType; }
  const char* name() const noexcept override { return file_.name().c_str(); }
  std::uint64_t features() const noexcept override { return features_; }
  std::span<const std::uint16_t> queueSizes() const noexcept override { return queueSizes_; }

  void readConfig(std::uint64_t offset, std::span<std::uint8_t> data) noexcept override;
  void writeConfig(std::uint64_t offset, std::span<const std::uint8_t> data) noexcept override;

  // Starts the threads: while the process is created only. Throws Error.
  void connect(Interrupts& interrupts) override;
  void activate(Activation activation) noexcept override;
  void deactivate(std::function<void()> done) noexcept override;

  // The eventfds that activate and deactivate write to, for the filters of threads that call them. After connect.
  std::vector<int> wakeDescriptors() const;

 private:
  void fillConfig(std::uint16_t queues);
  void decideWriteThrough() noexcept;
  void forgetDriver() noexcept;

  const Cache cache_;
  const DiskFile file_;
  std::array<std::uint8_t, kIdBytes> id_{};
  std::function<void(const std::string&)> log_;
  std::function<void()> full_;
  std::uint64_t features_ = 0;
  std::vector<std::uint16_t> queueSizes_;
  Config config_;
  std::atomic<std::uint64_t> agreed_ = 0;
  std::atomic<bool> writeback_ = true;
  std::atomic<bool> writeThrough_ = false;
  Shape shape_;  // for the driver that is there

  std::vector<std::unique_ptr<Engine>> engines_;  // until connect
  std::vector<std::unique_ptr<Completions>> completions_;
  std::unique_ptr<BlockingThread> blocking_;
  std::optional<Common> common_;
  std::vector<std::unique_ptr<RequestQueue>> queues_;
};

}  // namespace vmmhost::kvm::virtio::block
