// What of the SDK needs no Cap'n Proto.
#include <vmmhost/confinement.h>
#include <vmmhost/counters.h>
#include <vmmhost/error.h>
#include <vmmhost/fd.h>
#include <vmmhost/rings.h>
#include <vmmhost/seccomp.h>

#include <cstdio>

using namespace vmmhost;

int main() {
  counters::HostPage page;
  counters::WorkerPage worker(duplicate(page.descriptor()));
  worker.add(counters::Cell::kVcpuExits, 2);
  worker.add(counters::Cell::kPauses);
  bool good = page.read(counters::Cell::kVcpuExits) == 2 && page.readAll().size() == 2 &&
              counters::cellName(counters::Cell::kVcpuExits) == "vcpuExits";

  seccomp::BaseParameters parameters;
  parameters.executableDescriptor = 5;
  parameters.rings = 1;
  for (const char* name : {"worker-static", "worker-dynamic", "worker-system"}) {
    const seccomp::Policy policy = seccomp::basePolicy(name, parameters);
    const std::vector<sock_filter> program = seccomp::compile(policy);
    seccomp_data call = {};
    call.arch = seccomp::kAuditArch;
    call.nr = static_cast<int>(policy.allow.front().number);
    good = good && seccomp::evaluate(program, call) != 0xdead && policy.name == name && !policy.fail.empty();
  }
  int (*install)(std::span<const sock_filter>, bool) noexcept = seccomp::install;

  confinement::Expectation expected;
  expected.pid = ::getpid();
  expected.newNamespaces = {"user"};
  expected.mounts.push_back({"/usr", "", true});
  expected.descriptors = std::vector<int>{0, 1, 2};
  const confinement::Report report = confinement::verify(expected);

  auto argument = rings::emptyArgument();
  rings::Geometry geometry{};
  good = good && rings::parseArgument({argument.data(), rings::kArgumentBytes}, geometry) == 0 && install != nullptr &&
         !report.violations.empty() && rings::kMaxRings == 32;
  const rings::Ring ring = rings::make();
  std::vector<rings::Ring> none = rings::takeInherited({});

  const Error error = systemError("looking", 2);
  good = good && error.code() == ErrorCode::kNotFound && errorCodeName(error.code()) == "notFound" && none.empty() &&
         !error.retryable() && error.hint().empty();
  Fd file(::dup(0));
  Fd moved = std::move(file);
  good = good && !file && moved && moved.duplicate().get() >= 3;
  std::puts(good ? "good" : "not as it was");
  return good ? 0 : 1;
}
