#include "plugins/kvm/look.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>

#include "vmmhost/error.h"
#include "worker-kvm/kvm/device.h"
#include "worker-kvm/probe/instruction_rate.h"

namespace vmmhost::plugins::kvm {

namespace {

std::string groupName(gid_t gid) {
  std::array<char, 1024> buffer;
  group entry{};
  group* found = nullptr;
  if (::getgrgid_r(gid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) {
    return {};
  }
  return found->gr_name;
}

std::string readCpuinfo() {
  std::ifstream file("/proc/cpuinfo");
  std::string text(64 * 1024, '\0');  // the first processors say it all
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

Findings explainOpenFailure(const std::string& device, int error) {
  Findings findings;
  if (error == ENOENT || error == ENODEV || error == ENXIO) {
    findings.summary = device + " is missing";
    findings.hint = hintForMissingDevice(readCpuinfo());
  } else if (error == EACCES || error == EPERM) {
    findings.summary = "no permission to open " + device;
    struct stat status {};
    if (::stat(device.c_str(), &status) == 0) {
      findings.hint = hintForPermission(device, groupName(status.st_gid), status.st_mode);
    }
  } else {
    findings.summary = systemError("opening " + device, error).message();
  }
  return findings;
}

// What the worker cannot do without.
void requireExtensions(const vmmhost::kvm::Device& device) {
  constexpr std::array<std::pair<int, const char*>, 4> kNeeded = {{{KVM_CAP_USER_MEMORY, "user memory"},
                                                                   {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
                                                                   {KVM_CAP_SPLIT_IRQCHIP, "a split irqchip"},
                                                                   {KVM_CAP_MP_STATE, "multiprocessing state"}}};
  for (const auto& [capability, name] : kNeeded) {
    if (device.extension(capability) == 0) {
      throw Error(ErrorCode::kUnavailable, std::string("KVM does not offer ") + name, "use Linux 4.12 or later");
    }
  }
}

}  // namespace

Findings look(const std::string& device, bool measure) {
  Fd fd(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) {
    return explainOpenFailure(device, errno);
  }
  Findings findings;
  try {
    const vmmhost::kvm::Device kvm(std::move(fd));
    requireExtensions(kvm);
    if (measure) {
      findings.instructionsPerSecond = vmmhost::kvm::probe::measureInstructionRate(kvm);
      findings.hardware = findings.instructionsPerSecond >= vmmhost::kvm::probe::kHardwareInstructionsPerSecond;
    }
    findings.usable = true;
    findings.summary = summarize(findings.instructionsPerSecond);
  } catch (const Error& error) {
    findings = {};
    findings.summary = error.message();
    findings.hint = error.hint();
  }
  return findings;
}

std::string summarize(std::uint64_t instructionsPerSecond) {
  if (instructionsPerSecond == 0) {
    return "KVM is present; its speed was not measured";
  }
  const bool hardware = instructionsPerSecond >= vmmhost::kvm::probe::kHardwareInstructionsPerSecond;
  std::array<char, 96> text;
  std::snprintf(text.data(), text.size(),
                hardware ? "KVM with hardware virtualization (%.0f MIPS)" : "present, but emulating (%.1f MIPS)",
                static_cast<double>(instructionsPerSecond) / 1e6);
  return text.data();
}

std::string hintForMissingDevice(std::string_view cpuinfo) {
  std::istringstream lines{std::string(cpuinfo)};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("flags")) {
      line += ' ';
      if (line.find(" vmx ") != std::string::npos) {
        return "sudo modprobe kvm_intel";
      }
      if (line.find(" svm ") != std::string::npos) {
        return "sudo modprobe kvm_amd";
      }
      break;
    }
  }
  return "enable virtualization (VT-x or AMD-V) in the firmware, or nested virtualization if this is a VM";
}

std::string hintForPermission(const std::string& device, const std::string& group, mode_t mode) {
  if (!group.empty() && group != "root" && (mode & 060) == 060) {
    return "sudo usermod -aG " + group + " $USER, then log in again";
  }
  return "sudo groupadd -f kvm && sudo chgrp kvm " + device + " && sudo chmod 0660 " + device +
         " && sudo usermod -aG kvm $USER, then log in again";
}

}  // namespace vmmhost::plugins::kvm
