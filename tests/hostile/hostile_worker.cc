// hostile-worker ATTACK MOMENT TOKEN: a worker that speaks the protocol as it should and makes one attack. What
// survives its attack tells what came of it as the end of the VM: "attack NAME: errno N" or "attack NAME: succeeded".
#include <pthread.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "tests/hostile/attack.h"
#include "vmmhost/worker/worker.h"

namespace vmmhost::hostile {
namespace {

// Filled by the constructor, before anything else in this program runs.
struct Orders {
  const Attack* attack;
  const char* moment;
  const char* token;
  const char* rings;
  const char* epolls;
  int result;
};
Orders orders;

Loot lootOf(int disk, int counters, int console) {
  return Loot{3, disk, counters, console, orders.token, orders.rings, orders.epolls};
}

bool isTime(Moment moment) {
  return orders.attack != nullptr && std::strcmp(orders.moment, momentName(moment)) == 0;
}

void attackIfTime(Moment moment, const Loot& loot) {
  if (isTime(moment)) {
    orders.result = orders.attack->run(loot);
  }
}

__attribute__((constructor(101))) void attackBeforeMain(int argc, char** argv, char**) {
  if (argc >= 4) {
    orders.attack = findAttack(argv[1]);
    orders.moment = argv[2];
    orders.token = argv[3];
    orders.rings = argv[argc - 1];
    orders.epolls = argv[argc - 1];
    if (std::strncmp(orders.epolls, "epolls=", 7) != 0) {
      orders.epolls = argv[argc - 2];
    }
    attackIfTime(Moment::kConstructor, lootOf(-1, -1, -1));
  }
}

std::string outcome() {
  if (orders.attack == nullptr) {
    return "no such attack";
  }
  const std::string text = std::string("attack ") + orders.attack->name + ": ";
  return orders.result == 0 ? text + "succeeded" : text + "errno " + std::to_string(orders.result);
}

class HostileMachine final : public worker::Machine {
 public:
  HostileMachine(worker::Events& events, Fd disk, Fd counters, Fd console)
      : events_(events), disk_(std::move(disk)), counters_(std::move(counters)), console_(std::move(console)) {}

  kj::Promise<void> start() override {
    const Loot loot = lootOf(disk_.get(), counters_.get(), console_.get());
    attackIfTime(Moment::kStart, loot);
    if (isTime(Moment::kThread)) {
      attackFromThread(loot);
    }
    if (orders.attack != nullptr && orders.attack->when == When::kStays) {
      worker::log(worker::LogLevel::kInfo, outcome());
      return kj::READY_NOW;
    }
    // Behind the answer to start, as with a guest that ends at once.
    events_.sender().post([this] { events_.ended(schema::EndCause::POWER_OFF, outcome()); });
    return kj::READY_NOW;
  }

  // One that stays ends by it, as a guest does.
  bool hasPowerButton() const override { return true; }
  kj::Promise<void> pressPowerButton() override {
    events_.sender().post([this] { events_.ended(schema::EndCause::POWER_OFF, outcome()); });
    return kj::READY_NOW;
  }

 private:
  static void attackFromThread(Loot loot) {
    pthread_t thread{};
    const auto body = [](void* given) -> void* {
      attackIfTime(Moment::kThread, *static_cast<Loot*>(given));
      return nullptr;
    };
    if (::pthread_create(&thread, nullptr, body, &loot) == 0) {
      ::pthread_join(thread, nullptr);
    }
  }

  worker::Events& events_;
  Fd disk_;
  Fd counters_;
  Fd console_;
};

class HostileBackend final : public worker::Backend {
 public:
  // No filter of its own: the base filter and the rest of the jail are all that stops it.
  void confine() override { attackIfTime(Moment::kConfirm, lootOf(-1, -1, -1)); }

  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader config, worker::Resources& resources,
                                                       worker::Events& events, kj::AsyncIoContext&) override {
    Fd disk;
    if (config.getDisks().size() > 0) {
      disk = resources.takeFile(config.getDisks()[0].getFile().getResource());
    }
    return std::unique_ptr<worker::Machine>(
        std::make_unique<HostileMachine>(events, std::move(disk), resources.takeCounters(), resources.takeConsole(0)));
  }
};

}  // namespace
}  // namespace vmmhost::hostile

int main(int argc, char** argv) {
  vmmhost::hostile::HostileBackend backend;
  vmmhost::worker::ServeOptions options;
  options.arguments = {argv, static_cast<std::size_t>(argc)};
  return vmmhost::worker::serve(backend, options);
}
