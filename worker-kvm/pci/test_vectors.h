// Message vectors for tests: what they were told. Header only.
#pragma once

#include <poll.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "worker-kvm/devices/signals.h"
#include "worker-kvm/threads/wake.h"

namespace vmmhost::kvm::pci::test {

struct VectorState {
  threads::Wake event;
  std::optional<std::pair<std::uint64_t, std::uint32_t>> message;  // while connected
  unsigned connects = 0;
  bool wasWritten() const {
    pollfd one{event.descriptor(), POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  }
};

class Vectors final : public devices::MessageSource {
 public:
  std::unique_ptr<devices::MessageVector> makeVector() override {
    states_.push_back(std::make_shared<VectorState>());
    return std::make_unique<Vector>(states_.back());
  }
  VectorState& at(std::size_t index) { return *states_.at(index); }
  std::size_t count() const { return states_.size(); }

 private:
  class Vector final : public devices::MessageVector {
   public:
    explicit Vector(std::shared_ptr<VectorState> state) : state_(std::move(state)) {}
    int event() const noexcept override { return state_->event.descriptor(); }
    void connect(std::uint64_t address, std::uint32_t data) noexcept override {
      state_->message = {address, data};
      ++state_->connects;
    }
    void disconnect() noexcept override { state_->message.reset(); }
    bool isPending() noexcept override { return state_->wasWritten(); }
    void forget() noexcept override { state_->event.drain(); }

   private:
    std::shared_ptr<VectorState> state_;
  };

  std::vector<std::shared_ptr<VectorState>> states_;
};

}  // namespace vmmhost::kvm::pci::test
