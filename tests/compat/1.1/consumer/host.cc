// A program that embeds the host: PLUGIN_FOLDER INSTALLATION KERNEL BACKEND.
#include <vmmhost/host.h>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 5) {
    return 2;
  }
  try {
    vmmhost::HostOptions options;
    options.pluginPath = argv[1];
    options.installation = argv[2];
    options.logFile = "";
    vmmhost::Host host(options);
    for (const vmmhost::BackendSummary& backend : host.backends(false)) {
      if (backend.name == argv[4]) {
        std::printf("%s: %s, %s, %s, %zu capabilities, %ju instructions a second, %s\n", backend.name.c_str(),
                    backend.usable ? "usable" : "not usable", backend.summary.c_str(), backend.hint.c_str(),
                    backend.capabilities.size(), static_cast<std::uintmax_t>(backend.instructionsPerSecond),
                    backend.path.empty() ? "nowhere" : "somewhere");
      }
    }
    vmmhost::VmOptions vm;
    vm.backend = argv[4];
    vm.workingDirectory = "/";
    vm.timeout = std::chrono::milliseconds(60000);
    vm.withoutJailParts = {};
    vm.vsockFolder = "";
    vm.onState = [](vmmhost::State state, const std::string&) { std::printf("state %d\n", static_cast<int>(state)); };
    const std::string config = std::string(R"({"boot": {"kernel": ")") + argv[3] + R"("}, "memory": {"size": "64M"}})";
    std::unique_ptr<vmmhost::OwnedVm> machine = host.start(config, vm).get();
    // It may have ended by now: then these say so.
    for (auto operation : {&vmmhost::OwnedVm::pause, &vmmhost::OwnedVm::resume, &vmmhost::OwnedVm::shutdown,
                           &vmmhost::OwnedVm::reset}) {
      try {
        ((*machine).*operation)().get();
      } catch (const vmmhost::Error& error) {
        std::printf("refused: %s\n", error.what());
      }
    }
    try {
      const vmmhost::Fd console = machine->console(4096, false).get();
      std::printf("console %s\n", console ? "there" : "missing");
    } catch (const vmmhost::Error& error) {
      std::printf("refused: %s\n", error.what());
    }
    std::printf("described: %s\n", machine->describe().get().empty() ? "no" : "yes");
    const vmmhost::Ending stopped = machine->stop().get();
    const vmmhost::Ending ending = machine->wait().get();
    std::printf("ended: %s %s %s %d\n", ending.kind.c_str(), ending.cause.c_str(), ending.detail.c_str(),
                ending.exitCode);
    return machine->state() == vmmhost::State::kEnded && stopped.kind == ending.kind ? 0 : 1;
  } catch (const vmmhost::Error& error) {
    std::fprintf(stderr, "host: %s (%s)\n", error.message().c_str(), error.hint().c_str());
    return 1;
  }
}
