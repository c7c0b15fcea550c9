// vmmhost-worker-fake [ACTION[:ARGUMENT]:MOMENT...]: plays a guest of tests/guests, and fails as it is told to.
#include "vmmhost/worker/worker.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "tests/fake/fault.h"
#include "tests/fake/fault_server.h"
#include "tests/fake/machine.h"
#include "tests/fake/strike.h"
#include "vmmhost/epolls.h"

#ifdef VMMHOST_SANITIZED
// The search for leaks starts a process, which the jail refuses. When this worker is told to die it dies itself: a
// report would take calls that end it by SIGSYS.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigtrap=0:handle_abort=0";
}
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options() {
  return "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigtrap=0:handle_abort=0";
}
#endif

namespace vmmhost::fake {
namespace {

constexpr std::size_t kMaxFaults = 64;  // as many arguments as a plan may have
constexpr int kBadArguments = 2;

// Filled by the constructor, before anything else in this program runs: nothing may initialize it later.
struct Orders {
  Fault faults[kMaxFaults];
  std::size_t count = 0;
  bool areBad = false;
};
constinit Orders orders;

void strikeAll(Moment moment) {
  for (std::size_t index = 0; index < orders.count; ++index) {
    if (orders.faults[index].moment == moment) {
      strikeProcess(orders.faults[index]);
    }
  }
}

__attribute__((constructor(101))) void beforeMain(int argc, char** argv, char**) {
  for (int index = 1; index < argc && !epolls::parseArgument(argv[index]); ++index) {
    const ParsedFault parsed = parseFault(argv[index]);
    if (parsed.wrong != nullptr || orders.count == kMaxFaults) {
      orders.areBad = true;
      return;
    }
    orders.faults[orders.count++] = parsed.fault;
  }
  strikeAll(Moment::kConstructor);
}

class FakeBackend final : public worker::Backend {
 public:
  std::vector<std::string> features() const override { return {"pvh", "serial"}; }
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader config, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext& io) override {
    Given given;
    given.kernel = resources.takeFile(config.getBoot().getKernel().getResource());
    if (const auto initrd = config.getBoot().getInitrd().getResource(); initrd != 0) {
      given.initrd = resources.takeFile(initrd);
    }
    for (std::uint32_t index = 0; index < std::max(1U, config.getConsoles().size()); ++index) {
      given.consoles[index] = resources.takeConsole(index);
    }
    given.counters = resources.takeCounters();
    return std::unique_ptr<worker::Machine>(makeMachine(config, std::move(given), events, io));
  }
};

int run(int argc, char** argv) {
  if (orders.areBad) {
    worker::log(worker::LogLevel::kError, "the arguments are no faults");
    return kBadArguments;
  }
  strikeAll(Moment::kBeforeHello);
  if (orders.count > 0) {
    return serveWithFaults(std::span(orders.faults, orders.count));
  }
  FakeBackend backend;
  worker::ServeOptions options;
  options.build = "fake";
  options.arguments = {argv, static_cast<std::size_t>(argc)};
  return worker::serve(backend, options);
}

}  // namespace
}  // namespace vmmhost::fake

int main(int argc, char** argv) {
  return vmmhost::fake::run(argc, argv);
}
