// Chooses a backend while the event loop goes on.
#pragma once

#include <kj/async-unix.h>

#include <memory>
#include <string>

#include "host/plugin/registry.h"

namespace vmmhost::plugin {

// Registry::choose() on a thread of its own; with a name the proof of that backend, which is the choice then. Giving
// the promise up ends the probes and waits for the thread, which is a matter of milliseconds then. What plugins log
// meanwhile goes to the registry's log when the choice is made, on the loop's thread.
kj::Promise<Registry::Choice> chooseAside(kj::UnixEventPort& port, std::shared_ptr<Registry> registry,
                                          const std::string& backend = {});

}  // namespace vmmhost::plugin
