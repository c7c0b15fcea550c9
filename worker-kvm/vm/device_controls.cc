#include "worker-kvm/vm/device_controls.h"

#include <cassert>
#include <utility>

namespace vmmhost::kvm::vm {

namespace {

template <typename Function>
void addOne(Function& all, Function one) {
  if (one) {
    assert(!all);  // no configuration has two
    all = std::move(one);
  }
}

}  // namespace

void DeviceControls::add(DeviceControls more) {
  addOne(setBalloonTarget, std::move(more.setBalloonTarget));
  addOne(balloonActual, std::move(more.balloonActual));
  addOne(resizeConsole, std::move(more.resizeConsole));
  addOne(connectVsock, std::move(more.connectVsock));
  for (Disk& disk : more.disks) {
    disks.push_back(std::move(disk));
  }
}

}  // namespace vmmhost::kvm::vm
