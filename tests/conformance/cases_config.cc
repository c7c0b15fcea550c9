// A configuration is honoured, and what a backend does not serve of it is refused by name.
#include <fcntl.h>
#include <sys/file.h>

#include "tests/conformance/console_reader.h"
#include "tests/conformance/json_text.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

constexpr std::uint32_t kAll = 0xffffffff;

// Runs a guest to its end; what it said.
std::string saidBy(Context& context, const ConfigText& config) {
  SupervisedVm vm(context, config);
  auto console = vm.starter().console(kAll, false);
  vm.awaitRunning();  // the reason, if it does not start
  ConsoleReader reader(context.await(kj::mv(console), "attaching to the console"));
  reader.readToEnd();
  const Ended ended = vm.wait();
  check(ended.kind == "guest" && ended.cause == "powerOff",
        "the VM ended as " + ended.kind + ' ' + ended.cause + ": " + ended.detail);
  return reader.text();
}

void commandLine(Context& context) {
  checkContains(saidBy(context, {.guest = "cmdline", .boot = R"("cmdline":"one two=3  four=\"5\"")"}),
                "cmdline: one two=3  four=\"5\"", "what the guest said");
}

void noCommandLine(Context& context) {
  const std::string said = saidBy(context, {.guest = "cmdline"});
  checkContains(said, "cmdline: \n", "what the guest said");
}

void longestCommandLine(Context& context) {
  std::string text;
  while (text.size() < 2047) {
    text += static_cast<char>('a' + text.size() % 26);
  }
  checkContains(saidBy(context, {.guest = "cmdline", .boot = R"("cmdline":")" + text + '"'}), "cmdline: " + text,
                "what the guest said");
}

void longerCommandLine(Context& context) {
  refused(ErrorCode::kInvalidArgument, {"boot.cmdline"}, "a command line of 2048 bytes",
          [&]() { context.start({.boot = R"("cmdline":")" + std::string(2048, 'x') + '"'}); });
}

void commandLineOfOtherBytes(Context& context) {
  refused(ErrorCode::kInvalidArgument, {"boot.cmdline"}, "a command line with a line feed",
          [&]() { context.start({.boot = R"("cmdline":"a\nb")"}); });
}

void noInitrd(Context& context) {
  checkContains(saidBy(context, {.guest = "modules"}), "modules 0\n", "what the guest said");
}

void initrd(Context& context) {
  const std::string path = context.file("initrd", "\x01\x02\x03\x04\x05");
  checkContains(saidBy(context, {.guest = "modules", .boot = R"("initrd":")" + path + '"'}),
                "modules 1, first has 5 bytes, sum 15\n", "what the guest said");
}

void initrdOfManyPages(Context& context) {
  std::string content(3 * 4096 + 17, '\0');
  content[0] = 7;
  content[4095] = 9;
  const std::string path = context.file("initrd", content);
  checkContains(saidBy(context, {.guest = "modules", .boot = R"("initrd":")" + path + '"'}),
                "modules 1, first has 12305 bytes, sum 16\n", "what the guest said");
}

void relativePaths(Context& context) {
  context.file("initrd", "\x01");
  checkContains(saidBy(context, {.guest = "modules", .boot = R"("initrd":"initrd")"}), "first has 1 bytes, sum 1\n",
                "what the guest said");
}

// The guest touches every page that it is told of, from 2 MiB on.
void memorySize(Context& context, unsigned mebibytes) {
  const std::string said =
      saidBy(context, {.guest = "memory_touch", .memory = R"({"size":")" + std::to_string(mebibytes) + R"(M"})"});
  const std::size_t at = said.find("touched ");
  check(at != std::string::npos, "the guest said " + said);
  const unsigned long kibibytes = std::stoul(said.substr(at + 8));
  const unsigned long most = (mebibytes - 2) * 1024ul;
  // Firmware may keep a little for itself.
  check(kibibytes <= most && kibibytes + 1024 >= most,
        "the guest has " + std::to_string(kibibytes) + " KiB above 2 MiB, expected " + std::to_string(most));
}

// More than most machines have: of a guest that uses little of it.
void muchMemory(Context& context) {
  checkContains(saidBy(context, {.guest = "hello", .memory = R"({"size":"64G"})"}), "hello", "what the guest said");
}

void processors(Context& context, unsigned count) {
  const std::string number = std::to_string(count);
  checkContains(saidBy(context, {.guest = "smp",
                                 .boot = R"("cmdline":")" + number + '"',
                                 .members = R"("cpus":{"count":)" + number + '}'}),
                "processors " + number + "\n", "what the guest said");
}

void configIsTold(Context& context) {
  auto vm =
      context.start({.boot = R"("cmdline":"told")", .memory = R"({"size":"48M"})", .members = R"("name":"told")"});
  const Json info(get(vm->describe(), "describing"));
  checkEqual(info.string("config.boot.cmdline"), "told", "the command line that is told");
  checkEqual(info.number("config.memory.size"), 48 << 20, "the memory size that is told");
  checkEqual(info.string("name"), "told", "the name that is told");
  checkContains(info.text(), context.guest("loop"), "what is told");
}

std::string diskMember(const std::string& path, const std::string& more = "") {
  return R"("disks":[{"file":")" + path + '"' + more + "}]";
}

std::string newDisk(const Context& context) {
  return context.file("disk.img", std::string(1 << 20, 'd'));
}

void diskIsAttached(Context& context) {
  const std::string path = newDisk(context);
  auto vm = context.start({.members = diskMember(path, R"(,"serial":"conformance")")});
  const Json info(get(vm->describe(), "describing"));
  checkEqual(info.string("config.disks.0.serial"), "conformance", "the serial number that is told");
  const Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  check(::flock(file.get(), LOCK_EX | LOCK_NB) != 0, "the disk is not held while the VM has it");
  checkEqual(get(vm->stop(), "stopping").kind, "stopped", "the kind of end");
}

void diskIsLocked(Context& context) {
  const std::string disk = diskMember(newDisk(context));
  auto vm = context.start({.members = disk});
  const Error error = refused(ErrorCode::kFailedPrecondition, {"disks[0]", "disk.img"}, "a disk that is in use",
                              [&]() { context.start({.members = disk}); });
  check(error.retryable(), "it is not called retryable: " + error.message());
  get(vm->stop(), "stopping");
  context.start({.members = disk});  // free again
}

void diskIsShared(Context& context) {
  const std::string path = newDisk(context);
  const std::string disk = diskMember(path, R"(,"readOnly":true)");
  auto one = context.start({.members = disk});
  auto two = context.start({.members = disk});
  refused(ErrorCode::kFailedPrecondition, {"disks[0]", "disk.img"}, "writing to a disk that others read",
          [&]() { context.start({.members = diskMember(path)}); });
}

void diskIsMissing(Context& context) {
  refused(ErrorCode::kNotFound, {"disks[0]", "/no/such/disk"}, "a disk that is not there",
          [&]() { context.start({.members = diskMember("/no/such/disk")}); });
}

void diskIsAFolder(Context& context) {
  refused(ErrorCode::kInvalidArgument, {"disks[0]"}, "a disk that is a folder",
          [&]() { context.start({.members = diskMember(context.folder(), R"(,"readOnly":true)")}); });
}

// One field of VmConfig that a backend may serve or refuse: if it is taken, the VM runs.
struct Field {
  const char* field;       // what a refusal names
  const char* capability;  // which decides, or null
  ConfigText config;
  const char* text = "";  // what the field's name leaves open
};

std::vector<Field> fields() {
  return {
      {"boot.firmware", nullptr, {}},  // see fieldIsServedOrRefused
      {"cpus.max", nullptr, {.members = R"("cpus":{"count":1,"max":2})"}},
      {"cpus.threadsPerCore", VMMHOST_CAP_SMP, {.members = R"("cpus":{"count":2,"threadsPerCore":2})"}},
      {"cpus.coresPerSocket", VMMHOST_CAP_SMP, {.members = R"("cpus":{"count":2,"coresPerSocket":1})"}},
      {"memory.maxSize", nullptr, {.memory = R"({"size":"32M","maxSize":"64M"})"}},
      {"memory.shared", nullptr, {.memory = R"({"size":"32M","shared":true})"}},
      {"memory.hugePages", nullptr, {.memory = R"({"size":"32M","hugePages":true})"}},
      {"nics", VMMHOST_CAP_NIC, {.members = R"("nics":[{"attachment":{"none":null}}])"}},
      {"consoles[1]",
       nullptr,
       {.members = R"("consoles":[{"kind":"serial"},{"kind":"virtio"}])"},
       "a virtio console besides the serial one"},
      {"consoles[1].kind",
       nullptr,
       {.members = R"("consoles":[{"kind":"serial"},{"kind":"serial"}])"},
       "a second serial console"},
      {"consoles[0].kind",
       nullptr,
       {.members = R"("consoles":[{"kind":"virtio"}])"},
       "a virtio console and no serial one"},
      {"vsock", VMMHOST_CAP_VSOCK, {.members = R"("vsock":{"enabled":true})"}},
      {"shares", nullptr, {.members = R"("shares":[{"tag":"share","directory":"/usr"}])"}},
      {"rng", nullptr, {.members = R"("rng":{"enabled":true})"}},
      {"balloon", VMMHOST_CAP_BALLOON, {.members = R"("balloon":{"targetSize":"16M"})"}},
      {"watchdog", nullptr, {.members = R"("watchdog":{"action":"powerOff"})"}},
      {"platform.nestedVirtualization", nullptr, {.members = R"("platform":{"nestedVirtualization":true})"}},
      {"platform.uuid", nullptr, {.members = R"("platform":{"uuid":"0f8fad5b-d9cb-469f-a165-70867728950e"})"}},
  };
}

void fieldIsServedOrRefused(Context& context, const Field& field) {
  ConfigText config = field.config;
  config.guest = "poweroff";
  std::string json = context.config(config);
  if (std::string_view(field.field) == "boot.firmware") {
    json = R"({"boot":{"firmware":")" + context.file("firmware", std::string(65536, '\xf4')) +
           R"("},"memory":{"size":"32M"}})";
  }
  try {
    auto vm = context.startJson(json);
    if (std::string_view(field.field) != "boot.firmware") {
      checkEqual(get(vm->wait(), "the VM's end").cause, "powerOff", "the cause");
    }
    context.observe("served");
  } catch (const Error& error) {
    check(error.code() == ErrorCode::kUnsupported,
          std::string(field.field) + " is neither served nor refused as unsupported: " + text(error));
    checkContains(error.message(), field.field, "the refusal");
    context.observe("refused");
  }
}

}  // namespace

void addConfigCases(Cases& cases) {
  const auto add = [&](const std::string& name, std::function<void(Context&)> run, std::vector<std::string> more = {}) {
    std::vector<std::string> needs = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
    needs.insert(needs.end(), more.begin(), more.end());
    cases.push_back({"config." + name, needs, std::move(run)});
  };
  add("command-line", commandLine);
  add("no-command-line", noCommandLine);
  add("longest-command-line", longestCommandLine);
  add("command-line-that-is-too-long", longerCommandLine);
  add("command-line-of-other-bytes", commandLineOfOtherBytes);
  add("no-initrd", noInitrd);
  add("initrd", initrd, {VMMHOST_CAP_INITRD});
  add("initrd-of-many-pages", initrdOfManyPages, {VMMHOST_CAP_INITRD});
  add("relative-paths", relativePaths, {VMMHOST_CAP_INITRD});
  add("memory-of-16-mebibytes", [](Context& c) { memorySize(c, 16); });
  add("memory-of-64-mebibytes", [](Context& c) { memorySize(c, 64); });
  add("memory-of-64-gibibytes", muchMemory);
  add("one-processor", [](Context& c) { processors(c, 1); });
  add("two-processors", [](Context& c) { processors(c, 2); }, {VMMHOST_CAP_SMP});
  add("four-processors", [](Context& c) { processors(c, 4); }, {VMMHOST_CAP_SMP});
  add("sixty-four-processors", [](Context& c) { processors(c, 64); }, {VMMHOST_CAP_SMP});
  add("is-told", configIsTold);
  add("disk-is-attached", diskIsAttached, {VMMHOST_CAP_DISK});
  add("disk-in-use-is-refused", diskIsLocked, {VMMHOST_CAP_DISK});
  add("disk-that-is-read-is-shared", diskIsShared, {VMMHOST_CAP_DISK});
  add("disk-that-is-missing", diskIsMissing, {VMMHOST_CAP_DISK});
  add("disk-that-is-a-folder", diskIsAFolder, {VMMHOST_CAP_DISK});
}

void addFieldCases(Cases& cases) {
  for (const Field& field : fields()) {
    std::vector<std::string> needs = {VMMHOST_CAP_BOOT_PVH};
    if (field.capability != nullptr) {
      needs.emplace_back(field.capability);
    }
    cases.push_back({std::string("fields.") + field.field, needs,
                     [field](Context& context) { fieldIsServedOrRefused(context, field); }, field.text});
  }
}

}  // namespace vmmhost::conformance
