#include "vmmhost/worker/worker.h"

namespace vmmhost::worker {

Fd Resources::takeFile(std::uint32_t resource) {
  const auto found = files_.find(resource);
  if (found == files_.end() || !found->second) {
    throw Error(ErrorCode::kInvalidArgument, "file resource " + std::to_string(resource) + " was not attached");
  }
  return std::move(found->second);
}

Fd Resources::takeDevice(const std::string& name) {
  const auto found = devices_.find(name);
  return found == devices_.end() ? Fd() : std::move(found->second);
}

Fd Resources::takeConsole(std::uint32_t index) {
  const auto found = consoles_.find(index);
  if (found == consoles_.end() || !found->second) {
    throw Error(ErrorCode::kInvalidArgument, "console " + std::to_string(index) + " was not attached");
  }
  return std::move(found->second);
}

std::vector<Fd> Resources::takeNic(std::uint32_t index) {
  std::vector<Fd> queues;
  if (auto found = nics_.extract(index)) {
    for (auto& [queue, fd] : found.mapped()) {
      queues.push_back(std::move(fd));
    }
  }
  return queues;
}

Fd Resources::takeMemory() {
  return std::move(memory_);
}

Fd Resources::takeCounters() {
  return std::move(counters_);
}

rings::Ring Resources::takeRing() {
  rings::Ring ring;
  if (!rings_.empty()) {
    ring = std::move(rings_.back());
    rings_.pop_back();
  }
  return ring;
}

}  // namespace vmmhost::worker
