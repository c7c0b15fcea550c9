#include "host/vm/disk_settling.h"

#include <exception>
#include <utility>

namespace vmmhost::vm {

DiskSettling::~DiskSettling() {
  try {
    if (plans_.needSettling()) {
      tell(plans_.settle());
    }
  } catch (const std::exception& error) {
    log_.write(Severity::kError, "disk", error.what());
  }
}

kj::Promise<std::vector<std::string>> DiskSettling::settle() {
  DiskPlans plans = std::exchange(plans_, DiskPlans());
  if (!plans.needSettling()) {
    return std::vector<std::string>();
  }
  return settleAside(port_, std::move(plans)).then([this](std::vector<std::string>&& lines) {
    tell(lines);
    return kj::mv(lines);
  });
}

void DiskSettling::tell(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    log_.write(Severity::kWarning, "disk", line);
  }
}

}  // namespace vmmhost::vm
