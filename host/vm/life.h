// Where a VM is between preparing and ended, what happened when, and who hears of it.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/base/log.h"
#include "vmmhost/schema/host.capnp.h"

namespace vmmhost::vm {

class Life {
 public:
  using Timings = std::vector<std::pair<std::string, std::uint64_t>>;  // phase, CLOCK_MONOTONIC ns

  // `log` outlives it.
  explicit Life(Log& log) : log_(log) {}
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  schema::VmState state() const { return state_; }
  const char* stateName() const;  // "running", "being prepared"
  void setState(schema::VmState state, const std::string& detail = {});

  // False if it had begun before: an end begins once, and whatever comes after it changes nothing.
  bool beginEnd() { return !std::exchange(ending_, true); }
  bool isEnding() const { return ending_; }

  void noteStart();
  void noteEnd();
  std::int64_t startedUnixMs() const { return startedUnixMs_; }  // 0: not yet
  std::int64_t endedUnixMs() const { return endedUnixMs_; }

  void mark(const char* phase);  // now
  void addTiming(std::string phase, std::uint64_t ns) { timings_.emplace_back(std::move(phase), ns); }
  const Timings& timings() const { return timings_; }

  // Called at each change of state from now on, until the returned object goes. In order, each once.
  using Watcher = std::function<void(schema::VmState, std::int64_t unixMs, const std::string& detail)>;
  class Watch {
   public:
    ~Watch();

   private:
    friend class Life;
    std::list<Watcher>* list = nullptr;
    std::list<Watcher>::iterator position;
  };
  std::unique_ptr<Watch> watch(Watcher watcher);

 private:
  Log& log_;
  schema::VmState state_ = schema::VmState::PREPARING;
  bool ending_ = false;
  std::int64_t startedUnixMs_ = 0;
  std::int64_t endedUnixMs_ = 0;
  Timings timings_;
  std::list<Watcher> watchers_;
};

}  // namespace vmmhost::vm
