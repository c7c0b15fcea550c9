// Requests that are right in themselves.
#include <array>

#include "tests/hostile/flood/floods.h"

namespace vmmhost::hostile {
namespace {

// Where calls are made to the bootstrap capability, it is asked for first.
bool enter(Wire& wire, const Door& door) {
  return !door.isControl || wire.send(bootstrap(0));
}

Bytes askedAndDone(std::uint32_t question) {
  return bootstrap(question) + finish(question);
}

void neverReads(Wire& wire, const Door&) {
  Repeated asking(1, askedAndDone);
  while (wire.send(asking.some())) {
  }
}

void slowReader(Wire& wire, const Door&) {
  Repeated asking(1, askedAndDone);
  while (wire.send(asking.some(16)) && wire.read(1) && wire.pause(std::chrono::milliseconds(1))) {
  }
}

void bootstrapStorm(Wire& wire, const Door&) {
  Repeated asking(1, askedAndDone);
  while (wire.send(asking.some()) && wire.read(std::size_t{1} << 20)) {
  }
}

// The same as calls of a method that is answered at once.
void quickCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door)) {
    return;
  }
  Repeated calls(1, [&](std::uint32_t question) { return call(question, door, door.quickMethod) + finish(question); });
  while (wire.send(calls.some()) && wire.read(std::size_t{1} << 20)) {
  }
}

void unfinishedBootstraps(Wire& wire, const Door&) {
  Repeated asking(0, bootstrap);
  while (wire.send(asking.some()) && wire.read()) {
  }
}

void unfinishedCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door)) {
    return;
  }
  Repeated calls(1, [&](std::uint32_t question) { return call(question, door, door.endlessMethod); });
  while (wire.send(calls.some()) && wire.read()) {
  }
}

// Finished as soon as made, but not answered: the callee goes on for nobody.
void abandonedCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door)) {
    return;
  }
  Repeated calls(1,
                 [&](std::uint32_t question) { return call(question, door, door.endlessMethod) + finish(question); });
  while (wire.send(calls.some()) && wire.read()) {
  }
}

// Each is called on the result of the one before, by a path of its own, and none is ever answered.
void pipelinedCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door) || !wire.send(call(1, door, door.endlessMethod))) {
    return;
  }
  Repeated calls(2, [&](std::uint32_t question) {
    return call(question, door, door.quickMethod, [&](capnp::rpc::Call::Builder call) {
      auto answer = call.initTarget().initPromisedAnswer();
      answer.setQuestionId(question - 1);
      auto path = answer.initTransform(16);
      for (unsigned i = 0; i < path.size(); ++i) {
        path[i].setGetPointerField(static_cast<std::uint16_t>(i));
      }
    });
  });
  while (wire.send(calls.some()) && wire.read()) {
  }
}

// Calls on what a call that is under way will return, each given up at once.
void abandonedPipelinedCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door) || !wire.send(call(1, door, door.endlessMethod))) {
    return;
  }
  Repeated calls(2, [&](std::uint32_t question) {
    return call(question, door, door.quickMethod,
                [&](capnp::rpc::Call::Builder call) { call.initTarget().initPromisedAnswer().setQuestionId(1); }) +
           finish(question);
  });
  while (wire.send(calls.some()) && wire.read()) {
  }
}

void bigCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door)) {
    return;
  }
  Repeated calls(1, [&](std::uint32_t question) {
    return call(question, door, door.endlessMethod,
                [](capnp::rpc::Call::Builder call) { call.getParams().getContent().initAs<capnp::Data>(200 * 1024); });
  });
  while (wire.send(calls.some(4)) && wire.read()) {
  }
}

constexpr unsigned kCapabilities = 4000;

template <typename Set>
void exportFlood(Wire& wire, const Door& door, Set set) {
  if (!enter(wire, door)) {
    return;
  }
  Repeated calls(1, [&](std::uint32_t question) {
    return call(question, door, door.endlessMethod, [&](capnp::rpc::Call::Builder call) {
      auto table = call.getParams().initCapTable(kCapabilities);
      for (unsigned i = 0; i < kCapabilities; ++i) {
        set(table[i], question * kCapabilities + i);
      }
    });
  });
  while (wire.send(calls.some(4)) && wire.read()) {
  }
}

void exports(Wire& wire, const Door& door) {
  exportFlood(wire, door, [](auto entry, std::uint32_t id) { entry.setSenderHosted(id); });
}

void promises(Wire& wire, const Door& door) {
  exportFlood(wire, door, [](auto entry, std::uint32_t id) { entry.setSenderPromise(id); });
}

// A few a call, but in calls without end.
void exportsInSmallCalls(Wire& wire, const Door& door) {
  if (!enter(wire, door)) {
    return;
  }
  Repeated calls(1, [&](std::uint32_t question) {
    return call(question, door, door.quickMethod,
                [&](capnp::rpc::Call::Builder call) {
                  auto table = call.getParams().initCapTable(4);
                  for (unsigned i = 0; i < 4; ++i) {
                    table[i].setSenderPromise(question * 4 + i);
                  }
                }) +
           finish(question);
  });
  while (wire.send(calls.some()) && wire.read(std::size_t{1} << 20)) {
  }
}

constexpr std::array kFloods = {
    Flood{"never-reads", neverReads, End::kKept, End::kKept, 64},
    Flood{"slow-reader", slowReader, End::kKept, End::kKept, 64},
    Flood{"bootstrap-storm", bootstrapStorm, End::kKept, End::kKept, 4},
    // A worker's calls are events, of which it has some thousands in its life.
    Flood{"quick-calls", quickCalls, End::kKept, End::kCut, 4},
    Flood{"unfinished-bootstraps", unfinishedBootstraps},
    Flood{"unfinished-calls", unfinishedCalls},
    Flood{"abandoned-calls", abandonedCalls, End::kKept, End::kCut, 64},
    Flood{"pipelined-calls", pipelinedCalls},
    Flood{"abandoned-pipelined-calls", abandonedPipelinedCalls},
    Flood{"big-calls", bigCalls},
    Flood{"exports", exports},
    Flood{"promises", promises},
    Flood{"exports-in-small-calls", exportsInSmallCalls, End::kKept, End::kCut, 4},
};

}  // namespace

std::span<const Flood> answerFloods() {
  return kFloods;
}

}  // namespace vmmhost::hostile
