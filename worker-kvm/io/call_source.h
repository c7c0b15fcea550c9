// A watched descriptor whose owner has a function for it.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "worker-kvm/io/event_thread.h"

namespace vmmhost::kvm::io {

class CallSource final : public EventThread::Source {
 public:
  // `call` gets the events that are ready; it never throws.
  explicit CallSource(std::function<void(std::uint32_t events)> call) : call_(std::move(call)) {}
  void ready(std::uint32_t events) noexcept override { call_(events); }

 private:
  std::function<void(std::uint32_t)> call_;
};

}  // namespace vmmhost::kvm::io
