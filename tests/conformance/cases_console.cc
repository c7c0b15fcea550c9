// The console in both directions, with readers that are slow, gone or late, and what pausing means for the guest.
#include "tests/conformance/console_reader.h"
#include "tests/conformance/supervised.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

using std::chrono::milliseconds;

constexpr std::uint32_t kAll = 0xffffffff;
constexpr milliseconds kQuiet{400};     // in which a guest that runs would have spoken many times
constexpr std::size_t kLineBytes = 64;  // of the guests flood and chatter
constexpr std::size_t kFloodLines = 512;

std::unique_ptr<ConsoleReader> attach(OwnedVm& vm, std::uint32_t replay = kAll, bool input = true) {
  return std::make_unique<ConsoleReader>(get(vm.console(replay, input), "attaching to the console"));
}

void checkPowerOff(OwnedVm& vm) {
  const Ending ending = get(vm.wait(), "the VM's end");
  check(ending.kind == "guest" && ending.cause == "powerOff",
        "the VM ended as " + ending.kind + ' ' + ending.cause + ": " + ending.detail);
}

void lastOutputArrives(Context& context) {
  SupervisedVm vm(context, {.guest = "hello"});
  // Asked for before there is one, it is attached before the guest says anything.
  ConsoleReader reader(context.await(vm.starter().console(0, false), "attaching to the console"));
  checkContains(reader.readToEnd(), "hello from the guest\ngood bye\n", "the console's output");
  checkEqual(vm.wait().cause, "powerOff", "the cause");
}

// A VM may be over before the command that started it has come to ask.
void lastOutputAfterTheEnd(Context& context) {
  SupervisedVm vm(context, {.guest = "hello"});
  checkEqual(vm.wait().cause, "powerOff", "the cause");
  ConsoleReader reader(context.await(vm.starter().console(kAll, true), "attaching to the console"));
  checkContains(reader.readToEnd(), "hello from the guest\ngood bye\n", "the console's output");
}

void muchOutputInOrder(Context& context) {
  SupervisedVm vm(context, {.guest = "flood"});
  ConsoleReader reader(context.await(vm.starter().console(kAll, false), "attaching to the console"));
  const std::string& said = reader.readToEnd();
  std::size_t at = said.find("00000000 the quick");
  check(at != std::string::npos, "the first line is missing: " + said.substr(0, 200));
  for (std::size_t line = 0; line < kFloodLines; ++line, at += kLineBytes) {
    char number[9];
    std::snprintf(number, sizeof(number), "%08zx", line);
    check(said.compare(at, 8, number) == 0,
          "line " + std::to_string(line) + " is \"" + said.substr(at, kLineBytes - 1) + '"');
  }
  checkEqual(vm.wait().cause, "powerOff", "the cause");
}

void inputReachesTheGuest(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto console = attach(*vm);
  console->readUntil("echo ready\n");
  console->type("first.");
  console->readUntil("first.");
  console->type("second.");
  console->readUntil("second.");
  console->type("\x04");
  console->readUntil("echo done\n");
  checkPowerOff(*vm);
}

void muchInputReachesTheGuest(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto console = attach(*vm);
  console->readUntil("echo ready\n");
  std::string text;
  for (int index = 0; index < 250; ++index) {
    text += "0123456789abcdef"[index % 16];
    text += static_cast<char>('A' + index % 26);
  }
  console->type(text + "\x04");
  checkContains(console->readToEnd(), text, "what came back");
  checkPowerOff(*vm);
}

void inputNotAskedFor(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto reader = attach(*vm, kAll, false);
  reader->readUntil("echo ready\n");
  reader->type("unheard");
  auto writer = attach(*vm, 0, true);
  writer->type("heard\x04");
  const std::string& said = reader->readToEnd();
  checkContains(said, "heard", "the console's output");
  check(said.find("unheard") == std::string::npos, "the guest got input of a client that did not ask for it");
  checkPowerOff(*vm);
}

void lateClientGetsThePast(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto first = attach(*vm);
  first->readUntil("echo ready\n");
  first->type("past.");
  first->readUntil("past.");
  auto all = attach(*vm);
  auto some = attach(*vm, 5);
  auto none = attach(*vm, 0);
  first->type("now\x04");
  checkContains(all->readToEnd(), "echo ready\npast.now", "what one that asked for all of the past got");
  checkEqual(some->readToEnd().substr(0, 8), "past.now", "what one that asked for five bytes of the past got");
  checkEqual(none->readToEnd().substr(0, 3), "now", "what one that asked for no past got");
  checkPowerOff(*vm);
}

void twoClientsSeeTheSame(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto one = attach(*vm);
  auto two = attach(*vm);
  one->readUntil("echo ready\n");
  two->readUntil("echo ready\n");
  one->type("one.");
  two->readUntil("one.");
  two->type("two.");
  one->readUntil("two.");
  one->type("\x04");
  checkEqual(one->readToEnd(), two->readToEnd(), "what the first saw");
  checkPowerOff(*vm);
}

void clientThatLeaves(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto leaving = attach(*vm);
  auto staying = attach(*vm);
  leaving->readUntil("echo ready\n");
  leaving->type("before.");
  staying->readUntil("before.");
  leaving.reset();
  staying->type("after.");
  staying->readUntil("after.");
  auto again = attach(*vm);
  again->readUntil("before.after.");
  again->type("\x04");
  checkContains(staying->readToEnd(), "echo done", "what the one that stayed saw");
  checkPowerOff(*vm);
}

void clientsAreBounded(Context& context) {
  auto vm = context.start({});
  std::vector<std::unique_ptr<ConsoleReader>> clients;
  const Error error = refused(ErrorCode::kResourceExhausted, {"console"}, "one client too many", [&]() {
    for (int index = 0; index < 64; ++index) {
      clients.push_back(attach(*vm, 0));
    }
  });
  check(!clients.empty(), "not even one client was let in: " + text(error));
  context.observe(std::to_string(clients.size()) + " clients at most");
}

constexpr int kChatterAsks = 5;  // whether to go on; where older workers play it, it never does

// The guest chatter, which says more than any buffer on the way holds, with clients from its first byte on. The first
// of them may type.
struct Chatter {
  SupervisedVm vm;
  std::vector<std::unique_ptr<ConsoleReader>> clients;

  Chatter(Context& context, std::size_t count) : vm(context, {.guest = "chatter"}) {
    std::vector<kj::Promise<Fd>> streams;
    for (std::size_t index = 0; index < count; ++index) {
      streams.push_back(vm.starter().console(kAll, index == 0));
    }
    for (auto& stream : streams) {
      clients.push_back(std::make_unique<ConsoleReader>(context.await(kj::mv(stream), "attaching to the console")));
    }
  }
};

void readerThatNeverReads(Context& context) {
  Chatter chatter(context, 3);
  ConsoleReader& reader = *chatter.clients[0];
  ConsoleReader& late = *chatter.clients[1];  // and the third never reads
  // However late this process gets its turns, it has read what there is before more comes.
  int asked = 0;
  for (std::size_t at = 0;;) {
    const auto [said, end] = reader.readUntilOneOf("more?\n", "said it all\n", at);
    if (said != "more?\n") {
      break;
    }
    reader.type("y");
    at = end;
    ++asked;
  }
  // That of 1.1, which only its own worker plays, had half as many lines again.
  const bool isOlder = reader.text().find("000023ff the quick") != std::string::npos;
  checkEqual(asked, isOlder ? 0 : kChatterAsks, "how often the guest asked");
  check(isOlder || reader.text().find("bytes of console output lost]") == std::string::npos,
        "a reader that reads lost something because of others that do not");
  late.readUntil("said it all\n");
  checkContains(late.text(), "bytes of console output lost]", "what a reader that came too late was told");
  check(late.text().size() < reader.text().size(), "a reader that came too late got everything");
  chatter.vm.awaitRunning();  // the guest may be quicker than the news of its start
  checkEqual(chatter.vm.state(), "running", "the state");
  const auto begin = std::chrono::steady_clock::now();
  checkEqual(chatter.vm.stop().kind, "stopped", "the kind of end");
  check(std::chrono::steady_clock::now() - begin < kPatience / 2, "a reader that never reads held up the end");
}

void readerThatNeverReadsAndPause(Context& context) {
  Chatter chatter(context, 2);
  ConsoleReader& reader = *chatter.clients[0];
  chatter.vm.awaitRunning();
  reader.readUntil("00000010 the quick");
  reader.type(std::string(kChatterAsks, 'y'));  // it never waits
  context.await(chatter.vm.starter().pause(kPatience), "pausing");
  checkEqual(chatter.vm.state(), "paused", "the state");
  context.await(chatter.vm.starter().resume(kPatience), "resuming");
  checkEqual(chatter.vm.stop().kind, "stopped", "the kind of end");
}

void guestThatNeverReads(Context& context) {
  auto vm = context.start({});
  auto console = attach(*vm);
  const std::string block(65536, 'x');
  std::size_t taken = 0;
  for (int round = 0; round < 64; ++round) {
    taken += console->typeWhatFits(block);
  }
  check(taken < 64 * block.size(), "input without end is kept for a guest that reads none");
  get(vm->describe(), "describing");  // the host still answers
  checkEqual(get(vm->stop(), "stopping").kind, "stopped", "the kind of end");
}

void consoleEndsWithTheVm(Context& context) {
  auto vm = context.start({});
  auto console = attach(*vm);
  console->readUntil("looping\n");
  get(vm->stop(), "stopping");
  console->readToEnd();
}

void keptInTheStateFolder(Context& context) {
  SupervisedVm vm(context, {.guest = "hello"}, {.removeOnEnd = false});
  vm.wait();
  vm.leave();
  vm.reap();
  const auto folders = vm.directories();
  ConsoleReader log(runtime::openState(folders, runtime::vmName("vm"), "console.log"));
  checkContains(log.readToEnd(), "hello from the guest\ngood bye\n", "console.log");
  runtime::remove(folders, runtime::vmName("vm"));
}

// The number in the last whole line "tick 0000abcd".
unsigned long lastTick(const std::string& said) {
  const std::size_t end = said.rfind('\n');
  const std::size_t begin = end == std::string::npos ? end : said.rfind("tick ", end);
  check(begin != std::string::npos, "the guest does not count: " + said.substr(0, 200));
  return std::stoul(said.substr(begin + 5, 8), nullptr, 16);
}

void pausedGuestSaysNothing(Context& context) {
  auto vm = context.start({.guest = "ticker"});
  auto console = attach(*vm, kAll, false);
  console->readUntil("tick 00000003\n");
  get(vm->pause(), "pausing");
  console->readUntilQuiet(kQuiet);  // what it had said before
  const std::string before = console->text();
  check(!console->readUntilQuiet(kQuiet), "a paused guest said something");
  get(vm->resume(), "resuming");
  char next[32];
  std::snprintf(next, sizeof(next), "tick %08lx\n", lastTick(before) + 4);
  console->readUntil(next, before.size());
  unsigned long expected = 0;
  const std::string& said = console->text();
  for (std::size_t at = said.find("tick "); at != std::string::npos && at + 14 <= said.size();
       at = said.find("tick ", at + 1)) {
    checkEqual(std::stoul(said.substr(at + 5, 8), nullptr, 16), expected++, "a number that the guest counted");
  }
}

void manyPauses(Context& context) {
  auto vm = context.start({.guest = "ticker"});
  auto console = attach(*vm, kAll, false);
  console->readUntil("tick ");
  for (int round = 0; round < 25; ++round) {
    get(vm->pause(), "pausing");
    get(vm->resume(), "resuming");
  }
  console->readUntilQuiet(milliseconds(1));
  char next[32];
  std::snprintf(next, sizeof(next), "tick %08lx\n", lastTick(console->text()) + 5);
  console->readUntil(next);
  checkEqual(get(vm->stop(), "stopping").kind, "stopped", "the kind of end");
}

void inputWaitsForResume(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto console = attach(*vm);
  console->readUntil("echo ready\n");
  get(vm->pause(), "pausing");
  console->type("kept.\x04");
  check(!console->readUntilQuiet(kQuiet), "a paused guest said something");
  get(vm->resume(), "resuming");
  console->readUntil("kept.");
  checkPowerOff(*vm);
}

void pausedGuestDoesNotEnd(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto console = attach(*vm);
  console->readUntil("echo ready\n");
  get(vm->pause(), "pausing");
  console->type("\x04");
  auto ending = vm->wait();
  check(ending.wait_for(kQuiet) == std::future_status::timeout, "a paused guest ended");
  get(vm->resume(), "resuming");
  checkEqual(get(std::move(ending), "the VM's end").cause, "powerOff", "the cause");
}

void resetStartsAgain(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto console = attach(*vm);
  std::size_t at = console->readUntil("echo ready\n");
  for (int round = 0; round < 2; ++round) {
    get(vm->reset(), "resetting");
    at = console->readUntil("echo ready\n", at);
  }
  console->type("whole\x04");
  console->readUntil("whole", at);
  checkPowerOff(*vm);
}

void resetOfPausedStartsOnResume(Context& context) {
  auto vm = context.start({.guest = "serial_echo"});
  auto console = attach(*vm);
  const std::size_t at = console->readUntil("echo ready\n");
  get(vm->pause(), "pausing");
  get(vm->reset(), "resetting");
  check(vm->state() == State::kPaused, "a paused VM runs after a reset");
  console->readUntilQuiet(kQuiet);
  check(console->text().find("echo ready", at) == std::string::npos, "a paused guest started again");
  get(vm->resume(), "resuming");
  console->readUntil("echo ready\n", at);
}

}  // namespace

void addConsoleCases(Cases& cases) {
  const std::vector<std::string> serial = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
  const auto add = [&](const char* name, void (*run)(Context&), std::vector<std::string> more = {}) {
    std::vector<std::string> needs = serial;
    needs.insert(needs.end(), more.begin(), more.end());
    cases.push_back({std::string("console.") + name, needs, run});
  };
  add("last-output-arrives", lastOutputArrives);
  add("last-output-after-the-end", lastOutputAfterTheEnd);
  add("much-output-in-order", muchOutputInOrder);
  add("input-reaches-the-guest", inputReachesTheGuest);
  add("much-input-reaches-the-guest", muchInputReachesTheGuest);
  add("input-that-was-not-asked-for", inputNotAskedFor);
  add("late-client-gets-the-past", lateClientGetsThePast);
  add("two-clients-see-the-same", twoClientsSeeTheSame);
  add("client-that-leaves", clientThatLeaves);
  add("clients-are-bounded", clientsAreBounded);
  add("reader-that-never-reads", readerThatNeverReads);
  add("reader-that-never-reads-and-pause", readerThatNeverReadsAndPause, {VMMHOST_CAP_PAUSE});
  add("guest-that-never-reads", guestThatNeverReads);
  add("ends-with-the-vm", consoleEndsWithTheVm);
  add("kept-in-the-state-folder", keptInTheStateFolder);
}

void addPauseCases(Cases& cases) {
  const auto add = [&](const char* name, void (*run)(Context&), std::vector<std::string> more) {
    std::vector<std::string> needs = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_CONSOLE_SERIAL};
    needs.insert(needs.end(), more.begin(), more.end());
    cases.push_back({name, needs, run});
  };
  add("pause.paused-guest-says-nothing", pausedGuestSaysNothing, {VMMHOST_CAP_PAUSE});
  add("pause.many-pauses-lose-nothing", manyPauses, {VMMHOST_CAP_PAUSE});
  add("pause.input-waits-for-resume", inputWaitsForResume, {VMMHOST_CAP_PAUSE});
  add("pause.paused-guest-does-not-end", pausedGuestDoesNotEnd, {VMMHOST_CAP_PAUSE});
  add("reset.guest-starts-again", resetStartsAgain, {VMMHOST_CAP_RESET});
  add("reset.of-paused-starts-on-resume", resetOfPausedStartsOnResume, {VMMHOST_CAP_PAUSE, VMMHOST_CAP_RESET});
}

}  // namespace vmmhost::conformance
