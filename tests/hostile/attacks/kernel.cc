// Large surfaces of the kernel, and the way out of namespaces and filters.
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

int makeMap(const Loot&) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = 8;
  attributes.max_entries = 1;
  return raw(__NR_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
}

int countCycles(const Loot&) {
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.size = sizeof attributes;
  return raw(__NR_perf_event_open, &attributes, 0, -1, -1, 0);
}

int setUpRing(const Loot&) {
  char parameters[120] = {};
  return raw(__NR_io_uring_setup, 4, parameters);
}

int answerOwnCalls(const Loot&) {
  sock_filter notify{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF};
  sock_fprog program{1, &notify};
  return raw(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

// A filter that allows everything is accepted, and takes nothing of the first one away.
int allowEverything(const Loot& loot) {
  sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  sock_fprog program{1, &allow};
  const int error = raw(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
  return error != 0 ? error : raw(__NR_connect, loot.rpc, nullptr, 0);
}

constexpr Attack kAttacks[] = {
    {"unshare-user", [](const Loot&) { return raw(__NR_unshare, CLONE_NEWUSER); }},
    {"unshare-files", [](const Loot&) { return raw(__NR_unshare, CLONE_FILES); }},
    {"setns", [](const Loot& loot) { return raw(__NR_setns, loot.rpc, 0); }},
    {"keyctl", [](const Loot&) { return raw(__NR_keyctl, 0, -3, 1); }},
    {"add-key", [](const Loot&) { return raw(__NR_add_key, "user", "x", "y", 1, -4); }},
    {"request-key", [](const Loot&) { return raw(__NR_request_key, "user", "x", nullptr, 0); }},
    {"bpf", makeMap},
    {"perf", countCycles},
    {"io-uring", setUpRing, kKilled, fails(ENOSYS)},
    {"io-uring-register", [](const Loot& loot) { return raw(__NR_io_uring_register, loot.rpc, 0, nullptr, 0); }},
    {"userfaultfd", [](const Loot&) { return raw(__NR_userfaultfd, 0); }},
    {"filter-listener", answerOwnCalls, kKilled, fails(EINVAL)},
    {"filter-that-allows", allowEverything},
    {"landlock", [](const Loot&) { return raw(__NR_landlock_create_ruleset, nullptr, 0, 1); }},
    {"shared-memory", [](const Loot&) { return raw(__NR_shmget, 0, 4096, 01600); }},
    {"message-queue", [](const Loot&) { return raw(__NR_msgget, 0, 01600); }},
    {"posix-queue", [](const Loot&) { return raw(__NR_mq_open, "x", 0100, 0600, nullptr); }},
    {"kernel-log", [](const Loot&) { return raw(__NR_syslog, 10, nullptr, 0); }},
    {"load-module", [](const Loot& loot) { return raw(__NR_finit_module, loot.rpc, "", 0); }},
    {"reboot", [](const Loot&) { return raw(__NR_reboot, 0, 0, 0, nullptr); }},
    {"set-clock", [](const Loot&) { return raw(__NR_clock_settime, 0, nullptr); }},
    {"set-host-name", [](const Loot&) { return raw(__NR_sethostname, "x", 1); }},
    {"port-access", [](const Loot&) { return raw(__NR_iopl, 3); }},
    {"segments", [](const Loot&) { return raw(__NR_modify_ldt, 0, nullptr, 0); }},
    {"type-into-terminal", [](const Loot&) { return raw(__NR_ioctl, 0, TIOCSTI, "x"); }, kKilled, fails(ENOTTY)},
    {"splice", [](const Loot& loot) { return raw(__NR_splice, loot.rpc, nullptr, 1, nullptr, 1, 0); }},
    {"no-such-call", [](const Loot&) { return raw(1023); }},
};

}  // namespace

std::span<const Attack> kernelAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
