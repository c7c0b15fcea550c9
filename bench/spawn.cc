// A bare-metal guest that only powers off: from exec of the command until everything is gone, `vmmhost run` with its
// whole jail beside QEMU microvm without any, interleaved in one run; and where vmmhost's milliseconds go.
//
//   bench-spawn VMMHOST GUEST.elf [RUNS]
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "bench/samples.h"

namespace {

using namespace vmmhost;

double nowMs() {
  timespec time = {};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

// Runs a command with its standard output into `output` (null: /dev/null); milliseconds from spawn to reaped.
double run(const std::vector<std::string>& command, std::string* output, int expectedExit) {
  std::vector<char*> argv;
  for (const std::string& word : command) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    throw std::runtime_error("pipe2");
  }
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], 1);
  ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  const double begin = nowMs();
  pid_t pid = 0;
  const int failed = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  if (failed != 0) {
    throw std::runtime_error(command[0] + ": " + std::strerror(failed));
  }
  char buffer[65536];
  ssize_t got;
  while ((got = ::read(pipe[0], buffer, sizeof(buffer))) > 0) {
    if (output != nullptr) {
      output->append(buffer, static_cast<std::size_t>(got));
    }
  }
  ::close(pipe[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  const double elapsed = nowMs() - begin;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != expectedExit) {
    throw std::runtime_error(command[0] + " ended with status " + std::to_string(status));
  }
  return elapsed;
}

void printPhases(const std::vector<std::string>& vmmhost, int runs) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<double>> steps;
  for (int i = 0; i < runs; ++i) {
    std::string text;
    auto command = vmmhost;
    command.push_back("--json");
    run(command, &text, 0);
    const auto report = nlohmann::json::parse(text);
    double previous = 0;
    for (const auto& timing : report.at("timings")) {
      const std::string phase = timing.at("phase");
      const double at = timing.at("ns").get<double>() / 1e6;
      if (previous > 0) {
        if (steps.count(phase) == 0) {
          order.push_back(phase);
        }
        steps[phase].push_back(at - previous);
      }
      previous = at;
    }
  }
  std::printf("\nwhere each millisecond goes (medians of %d runs)\n", runs);
  double sum = 0;
  for (const std::string& phase : order) {
    const double step = bench::median(steps[phase]);
    sum += step;
    std::printf("  %-18s %8.3f ms\n", phase.c_str(), step);
  }
  std::printf("  %-18s %8.3f ms\n", "sum", sum);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: bench-spawn VMMHOST GUEST.elf [RUNS]\n");
    return 125;
  }
  const int runs = argc > 3 ? std::atoi(argv[3]) : 40;
  const std::vector<std::string> ours = {argv[1],    "run",   "--backend", "kvm", "--rm",
                                         "--kernel", argv[2], "--memory",  "128M"};
  // With all optional legacy features disabled, as QEMU's page on microvm has it. The guest waits until its serial port
  // has sent everything, which one that is not there says by itself.
  const std::vector<std::string> qemu = {"qemu-system-x86_64",
                                         "-M",
                                         "microvm,accel=kvm,x-option-roms=off,pit=off,pic=off,isa-serial=off,rtc=off",
                                         "-bios",
                                         "qboot.rom",
                                         "-cpu",
                                         "host,-arch-capabilities",
                                         "-m",
                                         "128",
                                         "-kernel",
                                         argv[2],
                                         "-nodefaults",
                                         "-no-user-config",
                                         "-display",
                                         "none",
                                         "-no-reboot"};
  try {
    bench::printMachine();
    std::vector<double> oursMs;
    std::vector<double> qemuMs;
    std::vector<double> trueMs;
    std::vector<double> ratios;
    for (int i = -2; i < runs; ++i) {
      const double a = run(ours, nullptr, 0);
      const double b = run(qemu, nullptr, 0);
      const double c = run({"true"}, nullptr, 0);
      if (i >= 0) {
        oursMs.push_back(a);
        qemuMs.push_back(b);
        trueMs.push_back(c);
        ratios.push_back(a / b);
      }
    }
    const double ratio = bench::median(oursMs) / bench::median(qemuMs);
    std::printf("exec -> all gone of a guest that powers off, %d runs, interleaved\n", runs);
    std::printf("  %-28s median %7.2f ms   p90 %7.2f ms\n", "vmmhost run --backend kvm", bench::median(oursMs),
                bench::quantile(oursMs, 0.9));
    std::printf("  %-28s median %7.2f ms   p90 %7.2f ms\n", "qemu microvm (no jail)", bench::median(qemuMs),
                bench::quantile(qemuMs, 0.9));
    std::printf("  %-28s median %7.2f ms\n", "true", bench::median(trueMs));
    std::printf("  ratio of medians %.2f, median of ratios %.2f (goal <= 0.5: %s)\n", ratio, bench::median(ratios),
                ratio <= 0.5 ? "met" : "missed");
    printPhases(ours, runs / 2 + 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench-spawn: %s\n", error.what());
    return 1;
  }
  return 0;
}
