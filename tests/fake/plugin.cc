// vmmhost-backend-fake.so: checks configurations, and plans the launch of vmmhost-worker-fake with the faults that the
// guest's command line asks for.
#include "vmmhost/plugin.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <array>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "tests/fake/config.h"
#include "vmmhost/error.h"

namespace vmmhost::fake {
namespace {

constexpr std::array<const char*, 11> kCapabilities = {
    VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_INITRD,       VMMHOST_CAP_CONSOLE_SERIAL, VMMHOST_CAP_PAUSE,
    VMMHOST_CAP_RESET,    VMMHOST_CAP_TRIPLE_FAULT, VMMHOST_CAP_COUNTERS,       VMMHOST_CAP_POWER_BUTTON,
    VMMHOST_CAP_BALLOON,  VMMHOST_CAP_VSOCK,        VMMHOST_CAP_CONSOLE_VIRTIO,
};
constexpr std::uint64_t kMaxConfigWords = 32 * 1024;
constexpr int kMaxConfigNesting = 24;

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
  }
  return -1;
}

Orders checkAndRead(const vmmhost_config* config) {
  if (config == nullptr || !VMMHOST_HAS_FIELD(config, vmmhost_config, capnp_word_count) ||
      config->capnp_words == nullptr || config->capnp_word_count > kMaxConfigWords) {
    throw Error(ErrorCode::kInvalidArgument, "the VM's configuration is missing or too large");
  }
  const kj::ArrayPtr<const capnp::word> segment(static_cast<const capnp::word*>(config->capnp_words),
                                                config->capnp_word_count);
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * kMaxConfigWords;
  options.nestingLimit = kMaxConfigNesting;
  capnp::SegmentArrayMessageReader message(kj::arrayPtr(&segment, 1), options);
  const auto reader = message.getRoot<schema::VmConfig>();
  check(reader);
  Orders orders = parseOrders(reader.getBoot().getCmdline().cStr());
  if (!orders.faults.empty() && reader.hasVsock() && reader.getVsock().getEnabled()) {
    throw Error(ErrorCode::kUnsupported, "vsock: not together with faults");
  }
  return orders;
}

int probe(const vmmhost_host_api*, const vmmhost_probe_request*, vmmhost_probe_result* result, vmmhost_error*) {
  result->usable = 1;
  result->acceleration = VMMHOST_ACCELERATION_EMULATED;
  result->capabilities = kCapabilities.data();
  result->capability_count = kCapabilities.size();
  result->summary = "plays the guests of the tests, without running them";
  return 0;
}

int validate(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error) {
  return guarded(host, error, [&] { checkAndRead(config); });
}

struct Launch {
  std::vector<std::string> faults;
  std::vector<const char*> arguments;
};

void release(vmmhost_launch_plan* plan) {
  delete static_cast<Launch*>(plan->plugin_private);
}

int plan(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan, vmmhost_error* error) {
  return guarded(host, error, [&] {
    Orders orders = checkAndRead(config);
    auto launch = std::make_unique<Launch>();
    launch->faults = std::move(orders.faults);
    for (const std::string& fault : launch->faults) {
      launch->arguments.push_back(fault.c_str());
    }
    plan->worker = "vmmhost-worker-fake";
    plan->epoll_count = launch->faults.empty() ? 1 : 0;  // with faults it is not the SDK that serves
    plan->arguments = launch->arguments.data();
    plan->argument_count = static_cast<std::uint32_t>(launch->arguments.size());
    plan->hello_timeout_ms = static_cast<std::uint64_t>(orders.helloTimeout.count());
    plan->create_timeout_ms = static_cast<std::uint64_t>(orders.createTimeout.count());
#ifdef VMMHOST_SANITIZED
    plan->root = VMMHOST_ROOT_SYSTEM;
    plan->flags = VMMHOST_PLAN_PROC;
    plan->seccomp = "worker-dynamic";
    plan->overhead_bytes = std::uint64_t{1} << 30;
#else
    plan->root = VMMHOST_ROOT_EMPTY;
    if (orders.jailOfGrants) {
      plan->grants = VMMHOST_GRANT_VSOCK_SOCKETS | (plan->epoll_count == 0 ? VMMHOST_GRANT_EPOLLS : 0);
    } else {
      plan->seccomp = "worker-static";
    }
#endif
    plan->release = release;
    plan->plugin_private = launch.release();
  });
}

constexpr vmmhost_plugin kPlugin = {
    sizeof(vmmhost_plugin),
    VMMHOST_PLUGIN_ABI,
    "fake",
    "1",
    "Plays test guests, and fails as it is asked to",
    0,
    0,
    probe,
    validate,
    plan,
};

}  // namespace
}  // namespace vmmhost::fake

extern "C" const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api*, vmmhost_error*) {
  return &vmmhost::fake::kPlugin;
}
