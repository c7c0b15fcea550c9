// Reads and writes what the schemas describe.
#include <capnp/message.h>

#include <cstdio>

#include <vmmhost/schema/error.capnp.h>
#include <vmmhost/schema/host.capnp.h>
#include <vmmhost/schema/vm.capnp.h>
#include <vmmhost/schema/worker.capnp.h>

using namespace vmmhost::schema;

int main() {
  capnp::MallocMessageBuilder message;
  auto info = message.initRoot<VmInfo>();
  info.initConfig().initCpus().setCount(2);
  info.initConfig().initDisks(1)[0].setCache(Disk::Cache::DIRECT);
  info.initOutcome().initError().setCode(ErrorCode::UNSUPPORTED);
  info.getOutcome().setCause(EndCause::TRIPLE_FAULT);
  info.getOutcome().getWorkerExit().setSignal(9);
  Control::Client control = nullptr;
  Worker::Client worker = nullptr;
  std::printf("control %d.%d, worker %d.%d\n", CONTROL_MAJOR, CONTROL_MINOR, PROTOCOL_MAJOR, PROTOCOL_MINOR);
  return info.asReader().getOutcome().getWorkerExit().isSignal() ? 0 : 1;
}
