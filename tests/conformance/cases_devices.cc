// Balloons and consoles as the host sees them. Bare-metal guests drive neither: what comes through is for stock Linux
// to show.
#include "tests/conformance/case.h"
#include "tests/conformance/console_reader.h"
#include "tests/conformance/context.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

constexpr std::uint64_t kMebibyte = 1 << 20;

void balloonTarget(Context& context) {
  SupervisedVm vm(context, {.members = R"("balloon":{"targetSize":"4M"})"});
  vm.awaitRunning();
  auto& client = vm.starter();
  checkEqual(context.await(client.balloon(kPatience), "asking").getTarget(), 4 * kMebibyte, "the target at first");
  context.await(client.setBalloon(8 * kMebibyte, kPatience), "setting the target");
  checkEqual(context.await(client.balloon(kPatience), "asking").getTarget(), 8 * kMebibyte, "the target that was set");
  context.await(client.setBalloon(0, kPatience), "setting the target to nothing");
  checkEqual(context.await(client.balloon(kPatience), "asking").getTarget(), std::uint64_t{0}, "the last target");
  vm.stop();
}

void balloonBeyondMemory(Context& context) {
  SupervisedVm vm(context, {.members = R"("balloon":{})"});
  vm.awaitRunning();
  auto& client = vm.starter();
  refused(ErrorCode::kInvalidArgument, {"memory"}, "a balloon of more than the memory",
          [&]() { context.await(client.setBalloon(33 * kMebibyte, kPatience), "setting the target"); });
  checkEqual(context.await(client.balloon(kPatience), "asking").getTarget(), std::uint64_t{0}, "the target");
  checkEqual(vm.state(), "running", "the state");
  vm.stop();
}

void balloonOfAnEndedVm(Context& context) {
  SupervisedVm vm(context, {.guest = "poweroff", .members = R"("balloon":{})"});
  vm.wait();
  refused(ErrorCode::kFailedPrecondition, {"balloon"}, "the balloon of a VM that has ended",
          [&]() { context.await(vm.starter().setBalloon(kMebibyte, kPatience), "setting the target"); });
}

void noBalloon(Context& context) {
  SupervisedVm vm(context, {});
  vm.awaitRunning();
  refused(ErrorCode::kUnsupported, {"balloon"}, "a balloon that is not there",
          [&]() { context.await(vm.starter().setBalloon(kMebibyte, kPatience), "setting the target"); });
  vm.stop();
}

constexpr char kThreeConsoles[] = R"("consoles":[{"kind":"serial"},{"kind":"virtio"},{"kind":"virtio"}])";

// No capability stands for them: they are served, or refused by name.
void furtherConsoles(Context& context) {
  SupervisedVm vm(context, {.guest = "serial_echo", .members = kThreeConsoles});
  try {
    vm.awaitRunning();
  } catch (const Error& error) {
    check(error.code() == ErrorCode::kUnsupported, "further consoles are refused with " + text(error));
    checkContains(error.message(), "consoles[1]", "the refusal");
    context.observe("refused");
    return;
  }
  context.observe("served");
  auto& client = vm.starter();
  const Fd further = context.await(client.console(0, true, 2), "attaching to the last console");
  check(bool(further), "there is no stream");
  refused(ErrorCode::kNotFound, {"console 3"}, "a console that is not there",
          [&]() { context.await(client.console(0, true, 3), "attaching"); });
  ConsoleReader first(context.await(client.console(0xffffffff, true), "attaching to the first console"));
  first.readUntil("echo ready\n");
  first.type("still here.");
  first.readUntil("still here.");
  vm.stop();
}

void terminalSizes(Context& context) {
  SupervisedVm vm(context, {.members = kThreeConsoles});
  vm.awaitRunning();
  auto& client = vm.starter();
  for (const std::uint32_t port : {0, 1, 2}) {
    context.await(client.resizeConsole(port, 132, 43, kPatience), "telling the size of a terminal");
  }
  refused(ErrorCode::kNotFound, {"console 3"}, "a console that is not there",
          [&]() { context.await(client.resizeConsole(3, 80, 25, kPatience), "telling a size"); });
  vm.stop();
}

}  // namespace

void addDeviceCases(Cases& cases) {
  const std::vector<std::string> balloon = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_BALLOON};
  cases.push_back({"balloon.target-is-set-and-told", balloon, balloonTarget});
  cases.push_back({"balloon.more-than-the-memory", balloon, balloonBeyondMemory});
  cases.push_back({"balloon.of-a-vm-that-has-ended", balloon, balloonOfAnEndedVm});
  cases.push_back({"balloon.none", {VMMHOST_CAP_BOOT_PVH}, noBalloon});
  const std::vector<std::string> serial = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
  cases.push_back({"console.further-ones", serial, furtherConsoles});
  cases.push_back({"console.sizes-of-terminals",
                   {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL, VMMHOST_CAP_CONSOLE_VIRTIO},
                   terminalSizes});
}

}  // namespace vmmhost::conformance
