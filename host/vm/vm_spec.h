// What a VM is made of.
#pragma once

#include <capnp/message.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "host/plugin/registry.h"
#include "host/vm/consoles.h"
#include "vmmhost/fd.h"

namespace vmmhost::vm {

struct VmSpec {
  std::unique_ptr<capnp::MallocMessageBuilder> config;  // root VmConfig, validated, with a name
  std::string backend;
  std::string choice;  // why this backend; empty: it was named
  plugin::LaunchPlan plan;
  std::string workingDirectory;
  uid_t uid = 0;  // host ids for the worker
  gid_t gid = 0;
  std::set<std::string> without;  // parts of the jail given up
  bool explainsJail = false;      // a call that the jail forbids is told with its arguments
  // How long an end that the guest brought about waits for the worker's private memory to be measured, which the
  // outcome tells then; 0: it is not measured. An end that somebody else wants never waits.
  std::chrono::milliseconds measureMemory{0};
  std::chrono::milliseconds timeout{0};  // from start() on; 0: none
  Consoles::FileOf consoleFile;
  bool keepConsole = false;  // the last output can be had after the end, by a client that was slow to ask
  std::string groupName;     // of its control groups, unlike that of any other VM
  std::function<void(const std::vector<std::string>&)> onCgroups;  // told the folders before they are made
  // For the sockets of a vsock device (host/vm/vsock.h), with its path; empty: the VM can have none.
  Fd vsockFolder;
  std::string vsockFolderPath;
};

}  // namespace vmmhost::vm
