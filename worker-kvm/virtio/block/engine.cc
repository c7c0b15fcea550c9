#include "worker-kvm/virtio/block/engine.h"

#include <array>
#include <cerrno>

#include "worker-kvm/io/ring.h"

namespace vmmhost::kvm::virtio::block {

namespace {

std::int64_t carryOut(const DiskFile& file, const Engine::Operation& operation) noexcept {
  std::int64_t result = 0;
  do {
    switch (operation.kind) {
      case Engine::Kind::kRead:
        result = file.read(operation.segments, operation.offset);
        break;
      case Engine::Kind::kWrite:
        result = file.write(operation.segments, operation.offset, false);
        break;
      case Engine::Kind::kDurableWrite:
        result = file.write(operation.segments, operation.offset, true);
        break;
      case Engine::Kind::kSyncData:
        result = file.syncData();
        break;
    }
  } while (result == -EINTR);
  return result;
}

class CallEngine final : public Engine {
 public:
  explicit CallEngine(const DiskFile& file) : file_(file) {}

  std::optional<std::int64_t> start(const Operation& operation) noexcept override { return carryOut(file_, operation); }
  bool submit() noexcept override { return true; }
  void reap(Client&) noexcept override {}
  int descriptor() const noexcept override { return -1; }
  confine::Rules rules() const override { return file_.transferRules(); }

 private:
  const DiskFile& file_;
};

class RingEngine final : public Engine {
 public:
  RingEngine(const DiskFile& file, rings::Ring ring) : file_(file), ring_(std::move(ring), file.descriptor()) {}

  std::optional<std::int64_t> start(const Operation& operation) noexcept override {
    underWay_[operation.tag] = operation;
    switch (operation.kind) {
      case Kind::kRead:
        ring_.read(operation.segments, operation.offset, operation.tag);
        break;
      case Kind::kWrite:
      case Kind::kDurableWrite:
        ring_.write(operation.segments, operation.offset, operation.kind == Kind::kDurableWrite, operation.tag);
        break;
      case Kind::kSyncData:
        ring_.syncData(operation.tag);
        break;
    }
    return std::nullopt;
  }
  bool submit() noexcept override { return ring_.submit(); }
  void reap(Client& client) noexcept override {
    ring_.reap([&](std::uint64_t tag, std::int64_t result) {
      // Where the kernel may start no thread (RLIMIT_NPROC, a control group) it cancels what needs one. The file may
      // also have been opened with O_NONBLOCK.
      if (result == -ECANCELED || result == -EAGAIN || result == -EINTR) {
        result = carryOut(file_, underWay_[tag]);
      }
      client.completed(static_cast<std::uint32_t>(tag), result);
    });
  }
  int descriptor() const noexcept override { return ring_.descriptor(); }
  confine::Rules rules() const override {
    confine::Rules rules = ring_.rules();
    confine::append(rules, file_.transferRules());
    return rules;
  }

 private:
  const DiskFile& file_;
  io::Ring ring_;
  std::array<Operation, kMaxUnderWay> underWay_{};
};

}  // namespace

std::unique_ptr<Engine> makeEngine(const DiskFile& file, rings::Ring ring) {
  if (ring.descriptor) {
    return std::make_unique<RingEngine>(file, std::move(ring));
  }
  return std::make_unique<CallEngine>(file);
}

}  // namespace vmmhost::kvm::virtio::block
