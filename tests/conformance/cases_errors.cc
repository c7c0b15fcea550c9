// What is wrong with a configuration or its files: refused with a code, a message that names it, and nothing started.
#include <sys/stat.h>

#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

struct BadConfig {
  const char* name;
  const char* json;  // @ is the path of a kernel that is all right
  ErrorCode code;
  std::vector<std::string> names;  // what the message names
};

const std::vector<BadConfig>& badConfigs() {
  static const std::vector<BadConfig> all = {
      {"no-json", "{", ErrorCode::kInvalidArgument, {"configuration"}},
      {"no-kernel", R"({})", ErrorCode::kInvalidArgument, {"boot"}},
      {"unknown-member", R"({"boot":{"kernel":"@"},"colour":"red"})", ErrorCode::kInvalidArgument, {"colour"}},
      {"unknown-nested-member",
       R"({"boot":{"kernel":"@"},"cpus":{"cores":2}})",
       ErrorCode::kInvalidArgument,
       {"cpus.cores"}},
      {"wrong-type", R"({"boot":{"kernel":"@"},"cpus":{"count":"two"}})", ErrorCode::kInvalidArgument, {"cpus.count"}},
      {"member-twice", R"({"boot":{"kernel":"@"},"name":"a","name":"b"})", ErrorCode::kInvalidArgument, {"name"}},
      {"no-cpus", R"({"boot":{"kernel":"@"},"cpus":{"count":0}})", ErrorCode::kInvalidArgument, {"cpus.count"}},
      {"too-many-cpus",
       R"({"boot":{"kernel":"@"},"cpus":{"count":100000}})",
       ErrorCode::kInvalidArgument,
       {"cpus.count", "100000"}},
      {"too-little-memory",
       R"({"boot":{"kernel":"@"},"memory":{"size":4096}})",
       ErrorCode::kInvalidArgument,
       {"memory.size", "4096"}},
      {"memory-in-odd-bytes",
       R"({"boot":{"kernel":"@"},"memory":{"size":67108865}})",
       ErrorCode::kInvalidArgument,
       {"memory.size"}},
      {"name-that-is-a-path", R"({"boot":{"kernel":"@"},"name":"../vm"})", ErrorCode::kInvalidArgument, {"name"}},
      {"host-only-member",
       R"({"boot":{"kernel":{"path":"@","resource":7}}})",
       ErrorCode::kInvalidArgument,
       {"resource"}},
      {"unknown-option",
       R"({"boot":{"kernel":"@"},"platform":{"options":[{"name":"no-such-option","value":"1"}]}})",
       ErrorCode::kUnsupported,
       {"platform.options"}},
      {"unknown-machine",
       R"({"boot":{"kernel":"@"},"platform":{"machine":"no-such-machine"}})",
       ErrorCode::kUnsupported,
       {"platform.machine"}},
      {"kernel-missing",
       R"({"boot":{"kernel":"/no/such/kernel"}})",
       ErrorCode::kNotFound,
       {"boot.kernel", "/no/such/kernel"}},
      {"initrd-missing",
       R"({"boot":{"kernel":"@","initrd":"/no/such/initrd"}})",
       ErrorCode::kNotFound,
       {"boot.initrd", "/no/such/initrd"}},
  };
  return all;
}

void badConfig(Context& context, const BadConfig& bad) {
  std::string json = bad.json;
  if (const std::size_t at = json.find('@'); at != std::string::npos) {
    json.replace(at, 1, context.guest("loop"));
  }
  const Error error = refused(bad.code, bad.names, "the configuration", [&]() { context.startJson(json); });
  check(!error.retryable(), "it is called retryable: " + error.message());
  context.observe(text(error));
}

void kernelFile(Context& context, const std::string& path, const std::vector<std::string>& names) {
  const Error error = refused(ErrorCode::kInvalidArgument, names, "the kernel", [&]() {
    context.startJson(R"({"boot":{"kernel":")" + path + R"("},"memory":{"size":"32M"}})");
  });
  check(!error.retryable(), "it is called retryable: " + error.message());
  context.observe(text(error));
}

void kernelIsText(Context& context) {
  kernelFile(context, context.file("text", std::string(64 * 1024, 'x')), {"kernel"});
}

void kernelIsEmpty(Context& context) {
  kernelFile(context, context.file("empty", ""), {"boot.kernel", "empty"});
}

void kernelIsFolder(Context& context) {
  kernelFile(context, context.folder(), {"boot.kernel", "folder"});
}

void kernelIsFifo(Context& context) {
  const std::string path = context.folder() + "/fifo";
  check(::mkfifo(path.c_str(), 0600) == 0, "cannot make " + path);
  kernelFile(context, path, {"boot.kernel", "FIFO"});
}

void kernelIsDevice(Context& context) {
  kernelFile(context, "/dev/null", {"boot.kernel", "character device"});
}

// An ELF header that promises more than there is.
void kernelIsCutShort(Context& context) {
  std::string header(64, '\0');
  header.replace(0, 8,
                 std::string("\x7f"
                             "ELF\x02\x01\x01\x00",
                             8));
  header[16] = 2;     // e_type: ET_EXEC
  header[18] = 0x3e;  // e_machine: EM_X86_64
  header[20] = 1;     // e_version
  header[32] = 64;    // e_phoff
  header[52] = 64;    // e_ehsize
  header[54] = 56;    // e_phentsize
  header[56] = 2;     // e_phnum
  kernelFile(context, context.file("short", header), {"kernel"});
}

void unknownBackend(Context& context) {
  VmOptions options = context.options();
  options.backend = "no-such-backend";
  const Error error = refused(ErrorCode::kNotFound, {"no-such-backend"}, "a backend that is not there",
                              [&]() { context.start({}, options); });
  checkContains(error.hint(), context.backend().name, "the hint");
}

void unknownJailPart(Context& context) {
  const Error error =
      refused(ErrorCode::kInvalidArgument, {"no-such-part"}, "a part of the jail that is not there", [&]() {
        SupervisedVm vm(context, {}, {.without = {"no-such-part"}});
        vm.awaitRunning();
      });
  check(!error.hint().empty(), "there is no hint that tells the parts");
}

void nameTaken(Context& context) {
  SupervisedVm first(context, {}, {.name = "taken"});
  first.awaitRunning();
  const Error error = refused(ErrorCode::kAlreadyExists, {"taken"}, "a name that is taken", [&]() {
    SupervisedVm second(context, {}, {.name = "taken"});
    second.awaitRunning();
  });
  check(!error.hint().empty(), "there is no hint");
  checkEqual(first.state(), "running", "the first VM's state");
  first.stop();
}

void failedStartHasAnOutcome(Context& context) {
  SupervisedVm vm(context, {.boot = R"("initrd":"/no/such/initrd")"});
  // A command that is slow to ask still hears how it went.
  context.await(vm.starter().hello(kPatience), "the supervisor's greeting");
  context.work(std::chrono::seconds(2));
  const Error error = refused(ErrorCode::kNotFound, {"boot.initrd", "/no/such/initrd"}, "a missing initrd",
                              [&]() { vm.awaitRunning(); });
  const Ended ended = vm.wait();
  checkEqual(ended.kind, "startFailed", "the kind of end");
  checkEqual(ended.exitCode, 127, "the exit code");
  checkEqual(ended.error, error.message(), "the outcome's error");
}

void hostGoesOnAfterErrors(Context& context) {
  for (int round = 0; round < 5; ++round) {
    errorOf("a configuration without a kernel", [&]() { context.startJson("{}"); });
    errorOf("a missing kernel", [&]() { context.startJson(R"({"boot":{"kernel":"/no/such/kernel"}})"); });
  }
  checkEqual(get(context.start({.guest = "poweroff"})->wait(), "the VM's end").cause, "powerOff", "the cause");
}

}  // namespace

void addErrorCases(Cases& cases) {
  for (const BadConfig& bad : badConfigs()) {
    // What a field of a capability says is looked at where the capability is.
    std::vector<std::string> needs;
    if (std::string_view(bad.name) == "initrd-missing") {
      needs = {VMMHOST_CAP_INITRD};
    }
    cases.push_back({std::string("errors.") + bad.name, needs, [&bad](Context& c) { badConfig(c, bad); }});
  }
  cases.push_back({"errors.kernel-that-is-text", {}, kernelIsText});
  cases.push_back({"errors.kernel-that-is-empty", {}, kernelIsEmpty});
  cases.push_back({"errors.kernel-that-is-a-folder", {}, kernelIsFolder});
  cases.push_back({"errors.kernel-that-is-a-fifo", {}, kernelIsFifo});
  cases.push_back({"errors.kernel-that-is-a-device", {}, kernelIsDevice});
  cases.push_back({"errors.kernel-that-is-cut-short", {}, kernelIsCutShort});
  cases.push_back({"errors.unknown-backend", {}, unknownBackend});
  cases.push_back({"errors.unknown-jail-part", {}, unknownJailPart});
  cases.push_back({"errors.name-that-is-taken", {VMMHOST_CAP_BOOT_PVH}, nameTaken});
  cases.push_back({"errors.failed-start-has-an-outcome", {VMMHOST_CAP_INITRD}, failedStartHasAnOutcome});
  cases.push_back({"errors.host-goes-on-after-errors", {VMMHOST_CAP_BOOT_PVH}, hostGoesOnAfterErrors});
}

}  // namespace vmmhost::conformance
