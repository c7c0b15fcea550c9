#include "tests/conformance/refusals.h"

#include <string_view>
#include <utility>

#include "tests/conformance/json_text.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

std::string fieldRefused(Context& context, const std::string& field, const ConfigText& config) {
  return text(refused(ErrorCode::kUnsupported, {field}, field + ", which is not advertised,",
                      [&]() { context.start(config); }));
}

std::string verbRefused(Context& context, const std::string& verb, std::future<void> (OwnedVm::*function)()) {
  auto vm = context.start({});
  const Error error = refused(ErrorCode::kUnsupported, {verb}, verb + ", which is not advertised,",
                              [&]() { get((*vm.*function)(), verb); });
  check(vm->state() == State::kRunning, "the VM is " + std::string(stateText(vm->state())) + " after the refusal");
  return text(error);
}

// Consoles of this kind may be served all the same: then their guest is not told how large a terminal is.
std::string consoleSizesNotTold(Context& context) {
  const ConfigText config = {.members = R"("consoles":[{"kind":"serial"},{"kind":"virtio"}])"};
  try {
    context.start(config);
  } catch (const Error& error) {
    check(error.code() == ErrorCode::kUnsupported,
          "consoles, which are not advertised, are refused with " + text(error));
    checkContains(error.message(), "consoles", "the refusal");
    return text(error);
  }
  SupervisedVm vm(context, config);
  vm.awaitRunning();
  auto& client = vm.starter();
  const Error error =
      refused(ErrorCode::kUnsupported, {"terminals"}, "the size of a terminal, which is not advertised,",
              [&]() { context.await(client.resizeConsole(1, 132, 43, kPatience), "telling it"); });
  vm.stop();
  return text(error);
}

// What every loader tells from an ELF file: the Linux boot protocol's header (x86/boot.rst, "The Real-Mode Kernel
// Header") with nothing behind it.
std::string emptyBzImage() {
  std::string image(64 * 1024, '\0');
  image[0x1f1] = 4;  // setup_sects
  image.replace(0x1fe, 2, "\x55\xaa");
  image.replace(0x202, 4, "HdrS");
  image.replace(0x206, 2, std::string("\x0c\x02", 2));  // version 2.12
  return image;
}

std::string linuxRefused(Context& context) {
  const std::string path = context.file("bzImage", emptyBzImage());
  return text(refused(ErrorCode::kUnsupported, {"boot.kernel"}, "a bzImage, which is not advertised,", [&]() {
    context.startJson(R"({"boot":{"kernel":")" + path + R"("},"memory":{"size":"64M"}})");
  }));
}

std::string tripleFaultNotTold(Context& context) {
  auto vm = context.start({.guest = "triple_fault"});
  const Ending ending = get(vm->wait(), "the VM's end");
  check(ending.kind == "guest", "a triple fault ended the VM as " + ending.kind + ": " + ending.detail);
  check(ending.cause != "tripleFault", "a triple fault is told apart, but that is not advertised");
  return "told as " + ending.cause;
}

std::string countersNotThere(Context& context) {
  auto vm = context.start({.guest = "hello"});
  get(vm->wait(), "the VM's end");
  const Json info(get(vm->describe(), "describing the VM"));
  check(info.size("counters.names") == 0 && info.size("counters.values") == 0,
        "counters are there, but they are not advertised: " + info.text());
  return "no counter is shown";
}

using Observe = std::string (*)(Context&);

constexpr std::pair<std::string_view, Observe> kObservers[] = {
    {VMMHOST_CAP_BOOT_PVH, [](Context& c) { return fieldRefused(c, "boot.kernel", {}); }},
    {VMMHOST_CAP_BOOT_LINUX, linuxRefused},
    {VMMHOST_CAP_INITRD,
     [](Context& c) {
       return fieldRefused(c, "boot.initrd", {.boot = R"("initrd":")" + c.file("initrd", "content") + '"'});
     }},
    {VMMHOST_CAP_SMP, [](Context& c) { return fieldRefused(c, "cpus.count", {.members = R"("cpus":{"count":2})"}); }},
    {VMMHOST_CAP_DISK,
     [](Context& c) {
       const std::string disk = c.file("disk.img", std::string(1 << 20, '\0'));
       return fieldRefused(c, "disks", {.members = R"("disks":[{"file":")" + disk + R"("}])"});
     }},
    {VMMHOST_CAP_CONSOLE_SERIAL,
     [](Context& c) { return fieldRefused(c, "consoles", {.members = R"("consoles":[{"kind":"serial"}])"}); }},
    {VMMHOST_CAP_CONSOLE_VIRTIO, consoleSizesNotTold},
    {VMMHOST_CAP_NIC, [](Context& c) { return fieldRefused(c, "nics", {.members = R"("nics":[{}])"}); }},
    {VMMHOST_CAP_PAUSE, [](Context& c) { return verbRefused(c, "pause", &OwnedVm::pause); }},
    {VMMHOST_CAP_POWER_BUTTON, [](Context& c) { return verbRefused(c, "shutdown", &OwnedVm::shutdown); }},
    {VMMHOST_CAP_RESET, [](Context& c) { return verbRefused(c, "reset", &OwnedVm::reset); }},
    {VMMHOST_CAP_TRIPLE_FAULT, tripleFaultNotTold},
    {VMMHOST_CAP_COUNTERS, countersNotThere},
    {VMMHOST_CAP_BALLOON,
     [](Context& c) { return fieldRefused(c, "balloon", {.members = R"("balloon":{"targetSize":"4M"})"}); }},
    {VMMHOST_CAP_VSOCK, [](Context& c) { return fieldRefused(c, "vsock", {.members = R"("vsock":{})"}); }},
};

Observe observerOf(std::string_view capability) {
  for (const auto& [name, observe] : kObservers) {
    if (name == capability) {
      return observe;
    }
  }
  return nullptr;
}

}  // namespace

bool knowsRefusalOf(std::string_view capability) {
  return observerOf(capability) != nullptr;
}

std::string observeRefusal(Context& context, const std::string& capability) {
  const Observe observe = observerOf(capability);
  check(observe != nullptr, "nothing is known of the capability " + capability);
  return observe(context);
}

}  // namespace vmmhost::conformance
