#include "worker-kvm/confine/confine.h"

#include <unistd.h>

#include <string>

#include "vmmhost/error.h"
#ifdef VMMHOST_SANITIZED
#include "vmmhost/worker/worker.h"
#endif

namespace vmmhost::kvm::confine {

namespace {

#ifndef VMMHOST_SANITIZED
void enter(const seccomp::Policy& policy, bool allThreads) {
  const int error = seccomp::install(seccomp::compile(policy), allThreads);
  if (error != 0) {
    throw Error(ErrorCode::kConfinement, "the seccomp filter " + std::string(policy.name) +
                                             " cannot be installed: errno " + std::to_string(error));
  }
}
#endif

}  // namespace

#ifdef VMMHOST_SANITIZED

void enterCreation() {
  worker::log(worker::LogLevel::kWarning, "built with sanitizers: seccomp is not tightened beyond the base filter");
}
std::vector<sock_filter> vcpuFilter(int, std::span<const int>) {
  return {};
}
std::vector<sock_filter> loaderFilter(std::span<const int>, int) {
  return {};
}
void enterControl() {
}

#else

void enterCreation() {
  enter(creationPolicy(), true);
}

std::vector<sock_filter> vcpuFilter(int vcpuDescriptor, std::span<const int> signalDescriptors) {
  return seccomp::compile(vcpuPolicy(vcpuDescriptor, signalDescriptors));
}

std::vector<sock_filter> loaderFilter(std::span<const int> files, int signalDescriptor) {
  return seccomp::compile(loaderPolicy(files, signalDescriptor));
}

void enterControl() {
  enter(controlPolicy(::getpid()), false);
}

#endif

}  // namespace vmmhost::kvm::confine
