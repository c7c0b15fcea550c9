// The machine's definition block: everything that a guest cannot find out by itself, in AML.
#pragma once

#include "worker-kvm/acpi/aml.h"
#include "worker-kvm/acpi/tables.h"

namespace vmmhost::kvm::acpi {

// The AML of the DSDT, without the table header.
aml::Bytes dsdtTerms(const MachineDescription& machine);

}  // namespace vmmhost::kvm::acpi
