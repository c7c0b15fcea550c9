// What a VM makes of its worker's abilities: the verbs that clients use, words for errors, what is not to reach a
// worker, and what an answer changes.
#pragma once

#include <kj/timer.h>

#include <cstdint>
#include <string>

#include "host/base/log.h"
#include "host/vm/abilities.h"
#include "host/vm/consoles.h"
#include "host/vm/life.h"
#include "host/vm/worker_process.h"

namespace vmmhost::vm {

class VmAbilities final : private AbilityOwner {
 public:
  // All outlive it.
  struct Parts {
    kj::Timer& timer;
    Log& log;
    Life& life;
    const Consoles& consoles;
    schema::VmConfig::Reader config;
    const std::string& backend;
  };
  explicit VmAbilities(Parts parts);

  // What the worker offers, for as long as it lives. Once; before it every verb is refused.
  void take(jailed::JailedProcess& worker, schema::Abilities::Reader offered);
  // Throws Error where the VM cannot be asked to `verb` ("pause").
  void requireAnswering(const std::string& verb) const override;

  kj::Promise<void> pause();
  kj::Promise<void> resume();
  kj::Promise<void> shutdown();  // asks the guest
  kj::Promise<void> reset();
  kj::Promise<void> setBalloon(std::uint64_t target);  // bytes that the guest is to give up
  struct Balloon {
    std::uint64_t target = 0;
    std::uint64_t actual = 0;  // as the guest tells
  };
  kj::Promise<Balloon> balloon();
  // The terminal that consoles[port] is shown on has this size.
  kj::Promise<void> resizeConsole(std::uint32_t port, std::uint16_t columns, std::uint16_t rows);

  // All of them, for a client: through the same gate as the calls above.
  void handOut(schema::Abilities::Builder out) { abilities_.handOut(out); }
  std::vector<const char*> shown() { return abilities_.shown(); }  // as `inspect` shows them

 private:
  bool isEnding() const override { return parts_.life.isEnding(); }
  const std::string& backend() const override { return parts_.backend; }
  kj::Timer& timer() override { return parts_.timer; }
  kj::Promise<Error> explain(kj::Exception exception) override { return worker_->explain(kj::mv(exception)); }

  void namePower();
  void nameBalloon();
  void nameConsoleSize();

  Parts parts_;
  jailed::JailedProcess* worker_ = nullptr;  // null until take()
  Abilities abilities_{*this};
  std::uint64_t balloonTarget_ = 0;
};

}  // namespace vmmhost::vm
