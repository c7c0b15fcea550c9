// Stock Linux: a distribution's kernel, with an initrd as guest/build makes one (its init runs vmmhost.run=COMMAND).
#include <fstream>
#include <sstream>

#include "tests/conformance/console_reader.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

constexpr std::uint32_t kAll = 0xffffffff;

std::string percentEncoded(const std::string& text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char byte : text) {
    out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return out;
}

std::string linuxConfig(const Context& context, const std::string& command, const std::string& members = "") {
  const std::string run = command.empty() ? "" : " vmmhost.run=" + percentEncoded(command);
  return R"({"boot":{"kernel":")" + context.kit().kernel + R"(","initrd":")" + context.kit().initrd +
         R"(","cmdline":"console=ttyS0 quiet no_timer_check)" + run + R"("},"memory":{"size":"256M"})" +
         (members.empty() ? "" : "," + members) + '}';
}

std::string withoutCarriageReturns(std::string text) {
  std::erase(text, '\r');
  return text;
}

void seesWhatWasConfigured(Context& context) {
  auto vm = context.startJson(linuxConfig(
      context, "echo cpus=$(nproc) kib=$(grep MemTotal /proc/meminfo | tr -dc 0-9) sum=$((6*7)); cat /proc/cmdline",
      context.backend().has(VMMHOST_CAP_SMP) ? R"("cpus":{"count":2})" : ""));
  ConsoleReader console(get(vm->console(kAll, false), "attaching to the console"));
  const std::string said = withoutCarriageReturns(console.readToEnd());
  checkContains(said, context.backend().has(VMMHOST_CAP_SMP) ? "cpus=2 " : "cpus=1 ", "what the guest said");
  checkContains(said, " sum=42\n", "what the guest said");
  checkContains(said, "console=ttyS0 quiet", "what the guest said");
  checkContains(said, "vmmhost-guest: exit status 0\n", "what the guest said");
  const std::size_t at = said.find("kib=");
  const unsigned long kibibytes = std::stoul(said.substr(at + 4));
  check(kibibytes > 180 * 1024 && kibibytes < 256 * 1024, "the guest has " + std::to_string(kibibytes) + " KiB");
  const Ending ending = get(vm->wait(), "the VM's end");
  check(ending.kind == "guest" && ending.cause == "powerOff",
        "the VM ended as " + ending.kind + ' ' + ending.cause + ": " + ending.detail);
}

std::string contentOf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void disksAreReadAndWritten(Context& context) {
  std::string content(256 * 1024, '\0');
  for (std::size_t index = 0; index < content.size(); ++index) {
    content[index] = static_cast<char>(index * 31 >> 3);
  }
  const std::string from = context.file("from.img", content);
  const std::string to = context.file("to.img", std::string(content.size(), '\0'));
  auto vm = context.startJson(linuxConfig(
      context, "dd if=/dev/vda of=/dev/vdb bs=64k 2>/dev/null; sync; echo x >/dev/vda && echo wrote || echo refused",
      R"("disks":[{"file":")" + from + R"(","readOnly":true},{"file":")" + to + R"("}])"));
  ConsoleReader console(get(vm->console(kAll, false), "attaching to the console"));
  checkContains(withoutCarriageReturns(console.readToEnd()), "refused\n", "what the guest said");
  get(vm->wait(), "the VM's end");
  check(contentOf(to) == content, "the disk that was written does not hold what was written");
  check(contentOf(from) == content, "the read-only disk was changed");
}

void powerButton(Context& context) {
  auto vm = context.startJson(linuxConfig(context, ""));
  ConsoleReader console(get(vm->console(kAll, false), "attaching to the console"));
  console.readUntil("vmmhost-guest: a shell");
  get(vm->shutdown(), "pressing the power button");
  const Ending ending = get(vm->wait(), "the VM's end");
  check(ending.kind == "guest" && ending.cause == "powerOff",
        "the VM ended as " + ending.kind + ' ' + ending.cause + ": " + ending.detail);
}

void reboot(Context& context) {
  auto vm = context.startJson(linuxConfig(context, "reboot -f"));
  const Ending ending = get(vm->wait(), "the VM's end");
  check(ending.kind == "guest" && ending.cause == "reset",
        "the VM ended as " + ending.kind + ' ' + ending.cause + ": " + ending.detail);
  checkEqual(ending.exitCode, 3, "the exit code");
}

void pausedInTheMiddle(Context& context) {
  auto vm = context.startJson(linuxConfig(context, "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; echo counted $i"));
  ConsoleReader console(get(vm->console(kAll, false), "attaching to the console"));
  for (int round = 0; round < 20; ++round) {
    get(vm->pause(), "pausing");
    get(vm->resume(), "resuming");
    console.readUntilQuiet(std::chrono::milliseconds(20));
  }
  checkContains(withoutCarriageReturns(console.readToEnd()), "counted 2000\n", "what the guest said");
  checkEqual(get(vm->wait(), "the VM's end").cause, "powerOff", "the cause");
}

}  // namespace

void addLinuxCases(Cases& cases) {
  const auto add = [&](const char* name, void (*run)(Context&), std::vector<std::string> more = {}) {
    std::vector<std::string> needs = {VMMHOST_CAP_BOOT_LINUX, VMMHOST_CAP_INITRD, VMMHOST_CAP_CONSOLE_SERIAL};
    needs.insert(needs.end(), more.begin(), more.end());
    needs.emplace_back(kNeedsLinux);
    cases.push_back({std::string("linux.") + name, needs, run});
  };
  add("sees-what-was-configured", seesWhatWasConfigured);
  add("disks-are-read-and-written", disksAreReadAndWritten, {VMMHOST_CAP_DISK});
  add("power-button", powerButton, {VMMHOST_CAP_POWER_BUTTON});
  add("reboot", reboot);
  add("paused-in-the-middle", pausedInTheMiddle, {VMMHOST_CAP_PAUSE});
}

}  // namespace vmmhost::conformance
