#include <linux/memfd.h>

#include <string>
#include <variant>

#include "ipc/jail/seccomp/call_table.h"
#include "vmmhost/error.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace vmmhost::seccomp {
namespace {

// A policy that has a name: a set of grants for good, and rules of its own. Which of the parameters add grants is
// below.
struct Fixed {
  std::string_view name;
  std::uint64_t grants;
  void (*addOwn)(Policy& policy, const BaseParameters& parameters);
};

constexpr std::uint64_t kOfAll = grant::kKvm | grant::kTap | grant::kVsockSockets;
constexpr Fixed kFixed[] = {
    {"worker-static", kOfAll | grant::kRings | grant::kDisks, addOwnOfStatic},
    {"worker-dynamic", kOfAll | grant::kRings | grant::kDisks | grant::kFiles | grant::kLoader, addOwnOfDynamic},
    {"worker-system",
     kOfAll | grant::kFiles | grant::kTemporaryFiles | grant::kLoader | grant::kPrograms | grant::kPairs,
     addOwnOfSystem},
};

const Fixed* find(std::string_view name) {
  for (const Fixed& fixed : kFixed) {
    if (fixed.name == name) {
      return &fixed;
    }
  }
  return nullptr;
}

}  // namespace

void addUnsealedMemoryFiles(Policy& policy) {
  allowIf(policy, __NR_memfd_create, {ArgCheck{1, 0xffffffffu & ~(MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), MFD_CLOEXEC}});
}

Policy basePolicy(std::string_view name, const BaseParameters& parameters) {
  const Fixed* fixed = find(name);
  if (fixed == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "there is no seccomp policy '" + std::string(name.substr(0, 64)) + "'",
                "a launch plan names one of worker-static, worker-dynamic, worker-system");
  }
  Policy policy;
  policy.name = fixed->name;
  addBasis(policy, parameters);
  addPieces(policy,
            fixed->grants | (parameters.makesMemoryFiles ? grant::kMemoryFiles : 0) |
                (parameters.makesEpolls ? grant::kEpolls : 0),
            parameters);
  fixed->addOwn(policy, parameters);
  keepFirstErrnos(policy);
  return policy;
}

std::uint64_t PolicyChoice::grants() const {
  if (const auto* bits = std::get_if<std::uint64_t>(&choice_)) {
    return *bits;
  }
  const Fixed* fixed = find(std::get<std::string>(choice_));
  return fixed == nullptr ? 0 : fixed->grants;
}

std::string PolicyChoice::describe() const {
  return isComposed() ? "grants: " + namesOf(grants()) : std::get<std::string>(choice_);
}

Policy PolicyChoice::policy(const BaseParameters& parameters) const {
  return isComposed() ? composedPolicy(grants(), parameters) : basePolicy(std::get<std::string>(choice_), parameters);
}

}  // namespace vmmhost::seccomp
