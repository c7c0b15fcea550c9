// Guests of a few instructions, as ELF files with a PVH note (Xen's docs/misc/pvh.pandoc): entered in 32-bit protected
// mode with flat segments, paging and interrupts off.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "vmmhost/fd.h"

namespace qemubackend::test {

// The machine code of a guest, put together from the pieces below.
using Code = std::string;

Code print(std::string_view text);  // to the 16550 at 0x3f8
Code powerOff();                    // ACPI S5: PM1a_CNT of q35 is port 0x604
Code resetRequest();                // keyboard controller, 0xfe to port 0x64
Code tripleFault();
Code panic();  // pvpanic, port 0x505
Code loopForever();
Code startWatchdog();       // an i6300ESB at 00:01.0, which runs out after two seconds
Code echoUntil(char last);  // serial input goes back out, up to and including `last`
Code awaitPowerButton();    // arms it and waits until it was pressed

// The guest as an ELF file in memory. Throws on failure of the system.
vmmhost::Fd guestFile(std::initializer_list<Code> pieces);
std::string guestImage(std::string_view code, bool withNote = true);
// A file in memory with this content.
vmmhost::Fd memoryFile(std::string_view content);

}  // namespace qemubackend::test
