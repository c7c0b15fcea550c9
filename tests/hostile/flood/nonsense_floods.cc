// Messages that are well-formed and have no business here.
#include <algorithm>
#include <array>
#include <random>

#include "tests/hostile/flood/floods.h"

namespace vmmhost::hostile {
namespace {

using Root = capnp::rpc::Message::Builder;

void repeat(Wire& wire, const std::function<Bytes(std::uint32_t)>& make, unsigned count = 64) {
  Repeated messages(1, make);
  while (wire.send(messages.some(count)) && wire.read()) {
  }
}

void provide(Wire& wire, const Door& door) {
  repeat(wire, [&](std::uint32_t question) {
    return message([&](Root root) {
      auto provide = root.initProvide();
      provide.setQuestionId(question);
      provide.initTarget().setImportedCap(door.target);
    });
  });
}

void accept(Wire& wire, const Door&) {
  repeat(wire,
         [](std::uint32_t question) { return message([&](Root root) { root.initAccept().setQuestionId(question); }); });
}

void join(Wire& wire, const Door& door) {
  repeat(wire, [&](std::uint32_t question) {
    return message([&](Root root) {
      auto join = root.initJoin();
      join.setQuestionId(question);
      join.initTarget().setImportedCap(door.target);
    });
  });
}

void obsolete(Wire& wire, const Door&) {
  repeat(wire,
         [](std::uint32_t) { return message([](Root root) { root.initObsoleteSave().initAs<capnp::Data>(64); }); });
}

// A kind of the future, with a body that an answer would have to carry back.
void unknownKind(Wire& wire, const Door&) {
  Bytes big = message([](Root root) { root.initObsoleteSave().initAs<capnp::Data>(200 * 1024); });
  // The root is a struct of one data word behind the root pointer: its first 16 bits are the kind.
  big[16] = 99;
  while (wire.send(big)) {
  }
}

void unimplemented(Wire& wire, const Door&) {
  repeat(wire, [](std::uint32_t question) {
    return message([&](Root root) { root.initUnimplemented().initResolve().initCap().setSenderPromise(question); });
  });
}

void abortWithALongReason(Wire& wire, const Door&) {
  wire.send(message([](Root root) { root.initAbort().initReason(200 * 1024); }));
  wire.rest();
}

void releaseOfUnknownIds(Wire& wire, const Door&) {
  repeat(wire, [](std::uint32_t id) {
    return message([&](Root root) {
      auto release = root.initRelease();
      release.setId(1000 + id);
      release.setReferenceCount(1);
    });
  });
}

void releaseOfTooMany(Wire& wire, const Door& door) {
  if (door.isControl && !wire.send(bootstrap(0))) {
    return;
  }
  repeat(wire, [&](std::uint32_t) {
    return message([&](Root root) {
      auto release = root.initRelease();
      release.setId(door.target);
      release.setReferenceCount(0xffffffff);
    });
  });
}

// Each brings a capability that has to be let go again.
void resolveOfUnknownPromises(Wire& wire, const Door&) {
  repeat(wire, [](std::uint32_t id) {
    return message([&](Root root) {
      auto resolve = root.initResolve();
      resolve.setPromiseId(id);
      resolve.initCap().setSenderPromise(100000 + id);
    });
  });
}

// The same, and nobody takes the messages that let it go.
void resolveAndNeverRead(Wire& wire, const Door&) {
  Repeated messages(1, [](std::uint32_t id) {
    return message([&](Root root) {
      auto resolve = root.initResolve();
      resolve.setPromiseId(id);
      resolve.initCap().setSenderHosted(100000 + id);
    });
  });
  while (wire.send(messages.some())) {
  }
}

void disembargoNonsense(Wire& wire, const Door& door) {
  if (door.isControl && !wire.send(bootstrap(0))) {
    return;
  }
  repeat(wire, [&](std::uint32_t id) {
    return message([&](Root root) {
      auto disembargo = root.initDisembargo();
      disembargo.initTarget().setImportedCap(door.target);
      disembargo.getContext().setSenderLoopback(id);
    });
  });
}

void disembargoNobodyAskedFor(Wire& wire, const Door& door) {
  repeat(wire, [&](std::uint32_t id) {
    return message([&](Root root) {
      auto disembargo = root.initDisembargo();
      disembargo.initTarget().setImportedCap(door.target);
      disembargo.getContext().setReceiverLoopback(id);
    });
  });
}

void returnOfUnknownQuestions(Wire& wire, const Door&) {
  repeat(wire, [](std::uint32_t id) {
    return message([&](Root root) {
      auto answer = root.initReturn();
      answer.setAnswerId(5000 + id);
      answer.initResults().initCapTable(64);
    });
  });
}

void finishWithoutCall(Wire& wire, const Door&) {
  repeat(wire, finish);
}

void callsOfUnknownTargets(Wire& wire, const Door& door) {
  Door nowhere = door;
  nowhere.target = 4711;
  repeat(wire, [&](std::uint32_t question) { return call(question, nowhere, 0) + finish(question); });
}

void sameQuestionAgain(Wire& wire, const Door&) {
  repeat(
      wire, [](std::uint32_t) { return bootstrap(7); }, 8);
}

void levelThreeCalls(Wire& wire, const Door& door) {
  if (door.isControl && !wire.send(bootstrap(0))) {
    return;
  }
  repeat(wire, [&](std::uint32_t question) {
    return call(question, door, door.quickMethod, [](capnp::rpc::Call::Builder call) {
      call.getSendResultsTo().initThirdParty().initAs<capnp::Data>(64);
    });
  });
}

// Valid frames of noise; the numbers are the same in each run.
void noise(Wire& wire, const Door&) {
  std::mt19937_64 random(wire.socket());
  std::array<std::uint64_t, 64> words;
  while (!wire.isOver()) {
    std::generate(words.begin(), words.end(), random);
    wire.send(frame(std::span(words).first(1 + random() % words.size())));
    wire.read();
  }
}

constexpr std::array kFloods = {
    Flood{"provide", provide},
    Flood{"accept", accept},
    Flood{"join", join},
    Flood{"obsolete", obsolete},
    Flood{"unknown-kind", unknownKind},
    Flood{"unimplemented", unimplemented, End::kKept, End::kKept},
    Flood{"abort-with-a-long-reason", abortWithALongReason},
    Flood{"release-of-unknown-ids", releaseOfUnknownIds},
    Flood{"release-of-too-many", releaseOfTooMany},
    Flood{"resolve-of-unknown-promises", resolveOfUnknownPromises, End::kKept, End::kKept},
    Flood{"resolve-and-never-read", resolveAndNeverRead, End::kKept, End::kKept, 64},
    Flood{"disembargo-nonsense", disembargoNonsense},
    Flood{"disembargo-nobody-asked-for", disembargoNobodyAskedFor},
    Flood{"return-of-unknown-questions", returnOfUnknownQuestions},
    Flood{"finish-without-call", finishWithoutCall},
    Flood{"calls-of-unknown-targets", callsOfUnknownTargets},
    Flood{"same-question-again", sameQuestionAgain},
    Flood{"level-three-calls", levelThreeCalls},
    Flood{"noise", noise},
};

}  // namespace

std::span<const Flood> nonsenseFloods() {
  return kFloods;
}

}  // namespace vmmhost::hostile
