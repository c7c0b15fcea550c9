#include "worker-kvm/acpi/dsdt.h"

#include <array>
#include <cstdio>

#include "worker-kvm/acpi/resources.h"
#include "worker-kvm/arch/x86_64/layout.h"

namespace vmmhost::kvm::acpi {

namespace {

using aml::Bytes;
using aml::Serialize;

constexpr std::uint64_t kSoftOffType = 5;  // SLP_TYPx that devices::PowerPort takes for S5
constexpr char kPowerButton[] = "\\_SB.PWRB";
constexpr std::uint64_t kButtonPressed = 0x80;  // 5.6.6, table 5.163

// PCI Firmware 3.3, 4.5.1: the UUID of a PCI host bridge's capabilities, and the bits of its DWORDs.
constexpr char kHostBridgeCapabilities[] = "33db4d5b-1ff7-401c-9657-7441c03dd766";
constexpr std::uint64_t kUnrecognizedUuid = 1U << 2;
constexpr std::uint64_t kUnrecognizedRevision = 1U << 3;
constexpr std::uint64_t kCapabilitiesMasked = 1U << 4;
constexpr std::uint64_t kExpressCapabilityControl = 1U << 4;  // of the PCI Express capability structure

// 8.4: a processor device; its number is the one that the MADT has.
Bytes processor(std::uint32_t index) {
  std::array<char, 16> name;
  std::snprintf(name.data(), name.size(), "C%03X", index);
  return aml::device(name.data(), {aml::name("_HID", aml::string("ACPI0007")), aml::name("_UID", aml::integer(index))});
}

// Of what an operating system asks for it gets the PCI Express capability structures, which it may use as they are.
// Hot-plug, power management events and error reporting have no port here that could do them.
Bytes operatingSystemCapabilities() {
  const Bytes status = aml::nameString("CDW1");
  const Bytes control = aml::nameString("CDW3");
  const auto setStatus = [&status](std::uint64_t bit) { return aml::bitOr(status, aml::integer(bit), status); };
  return aml::method(
      "_OSC", 4, Serialize::kYes,
      {aml::createDWordField(aml::argument(3), 0, "CDW1"),
       aml::ifTrue(aml::equal(aml::argument(0), aml::uuid(kHostBridgeCapabilities)),
                   {aml::createDWordField(aml::argument(3), 8, "CDW3"),
                    aml::bitAnd(control, aml::integer(kExpressCapabilityControl), aml::local(0)),
                    aml::ifTrue(aml::logicalNot(aml::equal(aml::argument(1), aml::integer(1))),
                                {setStatus(kUnrecognizedRevision)}),
                    aml::ifTrue(aml::logicalNot(aml::equal(aml::local(0), control)), {setStatus(kCapabilitiesMasked)}),
                    aml::store(aml::local(0), control), aml::giveBack(aml::argument(3))}),
       setStatus(kUnrecognizedUuid), aml::giveBack(aml::argument(3))});
}

Bytes pciRoot(const MachineDescription& machine) {
  std::vector<Bytes> resources = {
      aml::wordBusNumbers(0, arch::kPciLastBus),
      aml::ioPorts(arch::kPciConfigPort, arch::kPciConfigPorts),
      aml::wordIoWindow({arch::kPciPortsStart, arch::kPciPorts}),
      aml::dwordMemoryWindow(machine.pciWindow32),
  };
  if (machine.pciWindow64) {
    resources.push_back(aml::qwordMemoryWindow(*machine.pciWindow64));
  }
  return aml::device("PCI0", {aml::name("_HID", aml::eisaId("PNP0A08")), aml::name("_CID", aml::eisaId("PNP0A03")),
                              aml::name("_UID", aml::integer(0)), aml::name("_SEG", aml::integer(0)),
                              aml::name("_BBN", aml::integer(0)), aml::name("_CRS", aml::resourceTemplate(resources)),
                              operatingSystemCapabilities()});
}

// PCI Firmware 3.3, 4.1.2: configuration space is a motherboard resource, else an operating system does not use it.
Bytes motherboard() {
  return aml::device(
      "MBRD", {aml::name("_HID", aml::eisaId("PNP0C02")), aml::name("_UID", aml::integer(0)),
               aml::name("_CRS", aml::resourceTemplate({aml::memory32Fixed({arch::kEcamStart, arch::kEcamBytes})}))});
}

Bytes serialPort() {
  return aml::device("COM1",
                     {aml::name("_HID", aml::eisaId("PNP0501")), aml::name("_UID", aml::integer(1)),
                      aml::name("_DDN", aml::string("COM1")),
                      aml::name("_CRS", aml::resourceTemplate({aml::ioPorts(arch::kSerialPort, arch::kSerialPorts),
                                                               aml::edgeInterrupt(arch::kSerialInterrupt)}))});
}

// 4.8.3.3.1: a control method power button.
Bytes powerButton() {
  return aml::device("PWRB", {aml::name("_HID", aml::eisaId("PNP0C0C")), aml::name("_UID", aml::integer(0))});
}

// 5.6.9: the one register is read once, which clears it (devices::Ged).
Bytes genericEventDevice(const std::vector<Event>& events) {
  std::vector<Bytes> handler = {aml::store(aml::nameString("ESEL"), aml::local(0))};
  for (const Event& event : events) {
    handler.push_back(
        aml::ifTrue(aml::bitAnd(aml::local(0), aml::integer(event.bits)), {aml::notify(event.path, event.value)}));
  }
  return aml::device("GED", {aml::name("_HID", aml::string("ACPI0013")), aml::name("_UID", aml::integer(0)),
                             aml::name("_CRS", aml::resourceTemplate({aml::edgeInterrupt(arch::kGedInterrupt)})),
                             aml::operationRegion("EREG", aml::RegionSpace::kSystemIo, arch::kGedPort, 1),
                             aml::byteField("EREG", "ESEL"), aml::method("_EVT", 1, Serialize::kYes, handler)});
}

}  // namespace

aml::Bytes dsdtTerms(const MachineDescription& machine) {
  std::vector<Bytes> terms;
  for (std::uint32_t index = 0; index < machine.cpus; ++index) {
    terms.push_back(processor(index));
  }
  terms.push_back(pciRoot(machine));
  terms.push_back(motherboard());
  if (machine.serial) {
    terms.push_back(serialPort());
  }
  terms.push_back(powerButton());
  std::vector<Event> events = {{kPowerButtonEvent, kPowerButton, kButtonPressed}};
  events.insert(events.end(), machine.events.begin(), machine.events.end());
  terms.push_back(genericEventDevice(events));
  terms.insert(terms.end(), machine.deviceTerms.begin(), machine.deviceTerms.end());
  const Bytes softOff =
      aml::package({aml::integer(kSoftOffType), aml::integer(0), aml::integer(0), aml::integer(0)});  // 7.4.2.6
  return aml::join({aml::scope("\\_SB", terms), aml::name("\\_S5", softOff)});
}

}  // namespace vmmhost::kvm::acpi
