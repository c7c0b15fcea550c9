// The kvm backend as the host sees it: the C interface, with no exception across it.
#include "vmmhost/plugin.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <algorithm>
#include <array>
#include <exception>
#include <string>

#include "plugins/kvm/look.h"
#include "vmmhost/error.h"
#include "vmmhost/rings.h"
#include "vmmhost/schema/vm.capnp.h"
#include "worker-kvm/config/check.h"

namespace vmmhost::plugins::kvm {
namespace {

constexpr char kDevicePath[] = "/dev/kvm";
constexpr std::uint64_t kMaxConfigWords = 32 * 1024;
constexpr int kMaxConfigNesting = 24;
constexpr std::uint64_t kHelloTimeoutMs = 20000;  // many may start at once, on a machine with much else to do

// The last one only where kernels of distributions run: a KVM that emulates lacks instructions that they use.
constexpr std::array<const char*, 15> kCapabilities = {
    VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_INITRD,         VMMHOST_CAP_SMP,        VMMHOST_CAP_DISK,
    VMMHOST_CAP_NIC,      VMMHOST_CAP_CONSOLE_SERIAL, VMMHOST_CAP_PAUSE,      VMMHOST_CAP_CONSOLE_VIRTIO,
    VMMHOST_CAP_VSOCK,    VMMHOST_CAP_BALLOON,        VMMHOST_CAP_RESET,      VMMHOST_CAP_TRIPLE_FAULT,
    VMMHOST_CAP_COUNTERS, VMMHOST_CAP_POWER_BUTTON,   VMMHOST_CAP_BOOT_LINUX,
};
constexpr std::array<vmmhost_device, 1> kDevices = {{{"kvm", kDevicePath, 0, 0}}};

// Carries out `body`; what it throws becomes the host's error.
template <typename Body>
int guarded(const vmmhost_host_api* host, vmmhost_error* error, Body body) noexcept {
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
  } catch (const kj::Exception& failure) {
    host->error_set(error, VMMHOST_ERROR_INVALID_ARGUMENT, failure.getDescription().cStr(), "", 0);
  } catch (...) {
    host->error_set(error, VMMHOST_ERROR_INTERNAL, "unknown exception", "", 0);
  }
  return -1;
}

// Runs `use` on the configuration that the host handed in.
template <typename Use>
void withConfig(const vmmhost_config* config, Use use) {
  if (config == nullptr || !VMMHOST_HAS_FIELD(config, vmmhost_config, capnp_word_count) ||
      config->capnp_words == nullptr || config->capnp_word_count > kMaxConfigWords) {
    throw Error(ErrorCode::kInvalidArgument, "the VM's configuration is missing or too large");
  }
  const kj::ArrayPtr<const capnp::word> segment(static_cast<const capnp::word*>(config->capnp_words),
                                                config->capnp_word_count);
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * kMaxConfigWords;
  options.nestingLimit = kMaxConfigNesting;
  capnp::SegmentArrayMessageReader reader(kj::arrayPtr(&segment, 1), options);
  use(reader.getRoot<schema::VmConfig>());
}

// Each queue of a disk has a ring, a thread that serves it and the kernel's own threads for the ring; each disk one for
// what blocks; a network card one for each queue pair.
void planThreads(schema::VmConfig::Reader config, vmmhost_launch_plan& plan) {
  constexpr std::uint32_t kOfAQueue = 5;
  constexpr std::uint32_t kOfANic = 8;
  constexpr std::uint32_t kOtherwise = 10;
  const std::uint32_t disks = config.getDisks().size();
  const std::uint32_t queues = disks * vmmhost::kvm::config::queuesPerDisk(config);
  plan.ring_count = std::min(queues, std::uint32_t{vmmhost::rings::kMaxRings});
  plan.epoll_count = vmmhost::kvm::config::epolls(config);
  plan.max_descriptors = vmmhost::kvm::config::descriptors(config);
  const std::uint32_t nics = config.getNics().size();
  if (disks + nics > 0) {
    plan.max_processes = config.getCpus().getCount() + kOtherwise + disks + kOfAQueue * queues + kOfANic * nics;
  }
}

int probe(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
          vmmhost_error* error) {
  return guarded(host, error, [&] {
    // Owned by the plugin until the next call, as the interface has it.
    static Findings findings;
    findings = look(kDevicePath, VMMHOST_HAS_FIELD(request, vmmhost_probe_request, measure) && request->measure != 0);
    result->usable = findings.usable ? 1 : 0;
    result->acceleration = findings.hardware ? VMMHOST_ACCELERATION_HARDWARE : VMMHOST_ACCELERATION_EMULATED;
    result->capabilities = kCapabilities.data();
    const bool emulates = findings.instructionsPerSecond != 0 && !findings.hardware;
    result->capability_count = kCapabilities.size() - (emulates ? 1 : 0);
    result->summary = findings.summary.c_str();
    result->hint = findings.hint.c_str();
    result->instructions_per_second = findings.instructionsPerSecond;
  });
}

int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  return guarded(host, error, [&] { withConfig(config, [](auto reader) { vmmhost::kvm::config::check(reader); }); });
}

int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan, vmmhost_error* error) {
  return guarded(host, error, [&] {
    // The worker's filters let it make no instances of epoll: under a host that starts it with none its first one would
    // be its end.
    if (!VMMHOST_HAS_FIELD(plan, vmmhost_launch_plan, max_descriptors)) {
      throw Error(ErrorCode::kUnsupported, "this plugin needs a host with version 1.2 of the plugin interface",
                  "install a host of this version");
    }
    withConfig(config, [plan](auto reader) {
      vmmhost::kvm::config::check(reader);
      planThreads(reader, *plan);
    });
    plan->worker = VMMHOST_WORKER_FROM_PLUGIN;
    plan->devices = kDevices.data();
    plan->device_count = kDevices.size();
    plan->hello_timeout_ms = kHelloTimeoutMs;
#ifdef VMMHOST_SANITIZED
    // Sanitizers need the dynamic loader and their libraries, and read /proc.
    plan->root = VMMHOST_ROOT_SYSTEM;
    plan->flags = VMMHOST_PLAN_PROC;
    plan->seccomp = "worker-dynamic";
    plan->overhead_bytes = std::uint64_t{1} << 30;
#else
    plan->root = VMMHOST_ROOT_EMPTY;
    plan->seccomp = "worker-static";
#endif
  });
}

constexpr vmmhost_plugin kPlugin = {
    sizeof(vmmhost_plugin),
    VMMHOST_PLUGIN_ABI,
    "kvm",
    VMMHOST_VERSION,
    "Linux KVM, by a small VMM of vmmhost's own",
    100,
    0,
    probe,
    validate,
    plan,
};

}  // namespace
}  // namespace vmmhost::plugins::kvm

extern "C" const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error) {
  if ((host->abi >> 16) != VMMHOST_PLUGIN_ABI_MAJOR) {
    host->error_set(error, VMMHOST_ERROR_UNSUPPORTED, "the kvm plugin was built for another plugin interface",
                    "install a plugin and a host of the same major version", 0);
    return nullptr;
  }
  return &vmmhost::plugins::kvm::kPlugin;
}
