// What a worker tells of its VM while it runs: which a guest, or a hostile worker, decides the content and number of.
#pragma once

#include <kj/timer.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "host/base/log.h"
#include "host/vm/event_rate.h"
#include "host/vm/few_lines.h"
#include "host/vm/life.h"
#include "vmmhost/error.h"
#include "vmmhost/schema/host.capnp.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::vm {

class WorkerEvents {
 public:
  // How the VM ends because of an event.
  struct End {
    schema::EndKind kind;
    schema::EndCause cause;
    std::string detail;
    std::optional<Error> error;
  };

  // All outlive it. `end` is called for each event that ends the VM; the first counts.
  WorkerEvents(kj::Timer& timer, Log& log, Life& life, schema::VmConfig::Reader config, std::function<void(End)> end);
  ~WorkerEvents();
  WorkerEvents(const WorkerEvents&) = delete;
  WorkerEvents& operator=(const WorkerEvents&) = delete;

  // For the worker. May outlive this, and is then of no use. Answers are held back where there are too many events; who
  // does not wait for them is at fault.
  schema::EventSink::Client sink();
  // No more will come: writes how many were not written each.
  void finish();

 private:
  class Sink;

  // How long the answer to it waits: a guest decides how often its worker tells of something, and a worker that is what
  // it should be tells no faster than is answered.
  kj::Duration note(schema::Event::Reader event);
  void noteEnd(schema::Event::Ended::Reader ended);
  void noteFullDisk(std::uint32_t index, kj::TimePoint now);
  void blame();  // the worker sends them without waiting for answers

  kj::Timer& timer_;
  Life& life_;
  schema::VmConfig::Reader config_;
  std::function<void(End)> end_;
  std::shared_ptr<WorkerEvents*> self_;  // null inside once this is gone
  EventRate rate_;
  EventRate panicRate_;
  FewLines resetLines_;
  FewLines panicLines_;
  FewLines fullDiskLines_;
};

}  // namespace vmmhost::vm
