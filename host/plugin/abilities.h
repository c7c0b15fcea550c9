// What a backend may be able to do: the one table of names and of what they mean to people. Conformance and
// docs/capabilities.md follow from it; vmmhost/plugin.h tells writers of plugins the same, word for word.
#pragma once

#include <array>

#include "vmmhost/plugin.h"

namespace vmmhost::plugin {

struct Ability {
  const char* name;  // VMMHOST_CAP_*
  const char* text;  // Markdown without tables
  // Where a worker has an object for it: the field of Abilities (schemas/worker.capnp), its name in `inspect`, and
  // whether clients get the object as well.
  const char* field = nullptr;
  const char* shown = nullptr;
  bool isHandedOut = false;
};

// In the order in which they are shown.
inline constexpr std::array kAbilities = {
    Ability{VMMHOST_CAP_BOOT_PVH, "ELF kernels with a PVH note"},
    Ability{VMMHOST_CAP_BOOT_LINUX, "kernels as distributions ship them"},
    Ability{VMMHOST_CAP_INITRD, "initial RAM disk"},
    Ability{VMMHOST_CAP_SMP, "more than one processor"},
    Ability{VMMHOST_CAP_DISK, "disks"},
    Ability{VMMHOST_CAP_NIC, "network cards, on TAP devices or on none"},
    Ability{VMMHOST_CAP_CONSOLE_SERIAL, "serial console, both directions"},
    Ability{VMMHOST_CAP_CONSOLE_VIRTIO, "consoles that tell the guest how large a terminal is", "consoleSize",
            "console-size", true},
    Ability{VMMHOST_CAP_PAUSE, "pause and resume", "pausable", "pause", true},
    Ability{VMMHOST_CAP_POWER_BUTTON, "the guest is asked to power off", "powerButton", "power-button", true},
    Ability{VMMHOST_CAP_RESET, "the guest starts again", "resettable", "reset", true},
    Ability{VMMHOST_CAP_TRIPLE_FAULT, "told apart from a reset"},
    Ability{VMMHOST_CAP_COUNTERS, "counters in `inspect`"},
    Ability{VMMHOST_CAP_BALLOON, "memory that the guest gives back while it runs", "balloon", "balloon", true},
    Ability{VMMHOST_CAP_VSOCK, "a vsock device, connections both ways", "vsock", "vsock"},
};

}  // namespace vmmhost::plugin
