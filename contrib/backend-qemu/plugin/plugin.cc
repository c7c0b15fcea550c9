// The plugin: tells whether QEMU is there, refuses what it cannot do, and plans the worker. It never touches a VM.
#include "vmmhost/plugin.h"

#include <capnp/message.h>
#include <unistd.h>

#include <array>
#include <exception>
#include <iterator>

#include "config/machine_spec.h"

namespace {

using vmmhost::Error;

constexpr const char* kQemu = "/usr/bin/qemu-system-x86_64";
// Where QEMU finds -bios qboot.rom.
constexpr std::array kFirmware = {"/usr/share/qemu/qboot.rom", "/usr/share/qboot/qboot.rom",
                                  "/usr/share/qemu-firmware/qboot.rom"};

// Not console-virtio: there are such consoles, but QEMU cannot tell a guest how large a terminal is.
constexpr std::array kCapabilities = {
    VMMHOST_CAP_BOOT_PVH,     VMMHOST_CAP_BOOT_LINUX, VMMHOST_CAP_INITRD,         VMMHOST_CAP_SMP,
    VMMHOST_CAP_DISK,         VMMHOST_CAP_NIC,        VMMHOST_CAP_CONSOLE_SERIAL, VMMHOST_CAP_PAUSE,
    VMMHOST_CAP_POWER_BUTTON, VMMHOST_CAP_RESET,      VMMHOST_CAP_BALLOON,
};

// Threads of QEMU besides virtual CPUs (main loop, RCU, disk requests, a helper or two) and the worker's own.
constexpr std::uint32_t kOtherThreads = 24;
// QEMU's own memory, its translation buffer, and copies of kernel and initrd.
constexpr std::uint64_t kOverheadBytes = std::uint64_t{384} << 20;
constexpr std::uint64_t kHelloTimeoutMs = 20000;  // many may start at once, on a machine with much else to do
constexpr std::uint64_t kCreateTimeoutMs = 20000;

constexpr vmmhost_device kKvmDevice = {"kvm", "/dev/kvm", 0, 0};

constexpr const char* kWatched[] = {kQemu};

bool firmwareIsThere() {
  for (const char* path : kFirmware) {
    if (::access(path, R_OK) == 0) {
      return true;
    }
  }
  return false;
}

int probe(const vmmhost_host_api*, const vmmhost_probe_request*, vmmhost_probe_result* result, vmmhost_error*) {
  result->acceleration = VMMHOST_ACCELERATION_NONE;
  result->capabilities = kCapabilities.data();
  result->capability_count = kCapabilities.size();
  if (VMMHOST_HAS_FIELD(result, vmmhost_probe_result, watched_path_count)) {
    // An answer kept from before counts no longer when QEMU is removed or exchanged.
    result->watched_paths = kWatched;
    result->watched_path_count = 1;
  }
  if (::access(kQemu, X_OK) != 0) {
    result->summary = "QEMU is not installed (/usr/bin/qemu-system-x86_64)";
    result->hint = "apt-get install qemu-system-x86";
  } else if (!firmwareIsThere()) {
    result->summary = "QEMU is installed, its firmware qboot.rom is not";
    result->hint = "apt-get install qemu-system-data";
  } else {
    result->usable = 1;
    result->summary = "QEMU, translating guest code (TCG)";
  }
  return 0;
}

// The configuration as this backend understands it, or its refusal.
qemubackend::MachineSpec read(const vmmhost_config& config) {
  const capnp::word* words = static_cast<const capnp::word*>(config.capnp_words);
  const kj::ArrayPtr<const capnp::word> segments[] = {kj::arrayPtr(words, config.capnp_word_count)};
  capnp::SegmentArrayMessageReader message(segments);
  return qemubackend::readConfig(message.getRoot<vmmhost::schema::VmConfig>());
}

// Nothing is thrown across the C interface.
template <typename Body>
int guarded(const vmmhost_host_api* host, vmmhost_error* error, Body body) {
  try {
    body();
    return 0;
  } catch (const Error& failure) {
    host->error_set(error, static_cast<std::uint32_t>(failure.code()), failure.message().c_str(),
                    failure.hint().c_str(), failure.retryable() ? 1 : 0);
    if (VMMHOST_HAS_FIELD(host, vmmhost_host_api, error_field)) {
      host->error_field(error, failure.field().c_str());
    }
  } catch (const std::exception& failure) {
    host->error_set(error, VMMHOST_ERROR_INTERNAL, failure.what(), "", 0);
  } catch (...) {
    host->error_set(error, VMMHOST_ERROR_INTERNAL, "the configuration cannot be read", "", 0);
  }
  return -1;
}

int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  return guarded(host, error, [&]() { read(*config); });
}

int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan, vmmhost_error* error) {
  return guarded(host, error, [&]() {
    const qemubackend::MachineSpec spec = read(*config);
    plan->root = VMMHOST_ROOT_SYSTEM;
    plan->worker = VMMHOST_BACKEND_QEMU_WORKER;
    plan->flags = VMMHOST_PLAN_PROC | VMMHOST_PLAN_DEV;
    if ((host->abi & 0xffff) >= 2) {
      plan->flags |= VMMHOST_PLAN_REOPENABLE;  // an older host lets the worker copy a kernel itself
    }
    plan->seccomp = "worker-system";
    if (VMMHOST_HAS_FIELD(plan, vmmhost_launch_plan, epoll_count)) {
      plan->epoll_count = 1;  // the event loop's; QEMU polls
    }
    plan->max_processes = spec.cpus + kOtherThreads;
    plan->overhead_bytes = kOverheadBytes;
    plan->hello_timeout_ms = kHelloTimeoutMs;
    plan->create_timeout_ms = kCreateTimeoutMs;
    if (spec.kvm) {
      plan->devices = &kKvmDevice;
      plan->device_count = 1;
    }
  });
}

constexpr vmmhost_plugin kPlugin = {
    .size = sizeof(vmmhost_plugin),
    .abi = VMMHOST_PLUGIN_ABI,
    .name = "qemu",
    .version = VMMHOST_BACKEND_QEMU_VERSION,
    .description = "QEMU by QMP: boots stock kernels everywhere, translating guest code",
    .preference = 50,
    .reserved = 0,
    .probe = probe,
    .validate = validate,
    .plan = plan,
};

}  // namespace

extern "C" VMMHOST_PLUGIN_EXPORT const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host,
                                                                            vmmhost_error* error) {
  if (!VMMHOST_HAS_FIELD(host, vmmhost_host_api, error_set)) {
    return nullptr;
  }
  if (host->abi >> 16 != VMMHOST_PLUGIN_ABI_MAJOR) {
    host->error_set(error, VMMHOST_ERROR_UNAVAILABLE, "this plugin was built for another version of the interface",
                    "install a vmmhost-backend-qemu that fits", 0);
    return nullptr;
  }
  return &kPlugin;
}
