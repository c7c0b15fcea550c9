// A VM's disks once its worker is gone: those that became longer than planned are cut back, once.
#pragma once

#include <kj/async-unix.h>

#include <string>
#include <vector>

#include "host/base/log.h"
#include "host/vm/disk_plan.h"

namespace vmmhost::vm {

class DiskSettling {
 public:
  // Both outlive it; it outlives the worker.
  DiskSettling(kj::UnixEventPort& port, Log& log) : port_(port), log_(log) {}
  ~DiskSettling();  // in place, for a VM that goes without having ended
  DiskSettling(const DiskSettling&) = delete;
  DiskSettling& operator=(const DiskSettling&) = delete;

  void setPlans(DiskPlans plans) { plans_ = std::move(plans); }
  std::uint64_t largest() const { return plans_.largest(); }  // bytes, of all plans
  // Beside the event loop where there is anything to do; tells the log, and what it told.
  kj::Promise<std::vector<std::string>> settle();

 private:
  void tell(const std::vector<std::string>& lines);

  kj::UnixEventPort& port_;
  Log& log_;
  DiskPlans plans_;
};

}  // namespace vmmhost::vm
