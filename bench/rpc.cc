// Round trip between host and worker over Cap'n Proto, beside a raw ping-pong over a socket pair, interleaved in one
// run: both processes on one CPU, on two, and left to the scheduler.
//
//   bench-rpc [ROUNDS]
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <cstdlib>

#include "bench/samples.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/worker/worker.h"

namespace {

using namespace vmmhost;

constexpr int kCallsPerRound = 2000;
constexpr std::size_t kRawBytes = 64;

double now() {
  timespec time = {};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

class IdleMachine final : public worker::Machine {
 public:
  kj::Promise<void> start() override { return kj::READY_NOW; }
  bool canPause() const override { return true; }
};

class IdleBackend final : public worker::Backend {
 public:
  kj::Promise<std::unique_ptr<worker::Machine>> create(schema::VmConfig::Reader, worker::Resources&, worker::Events&,
                                                       kj::AsyncIoContext&) override {
    return std::unique_ptr<worker::Machine>(std::make_unique<IdleMachine>());
  }
};

class NoEvents final : public schema::EventSink::Server {
  kj::Promise<void> event(EventContext) override { return kj::READY_NOW; }
};

enum class Placement { kOneCpu, kTwoCpus, kScheduler };

void pinTo(int first, int count) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = first; cpu < first + count; ++cpu) {
    CPU_SET(cpu, &set);
  }
  ::sched_setaffinity(0, sizeof(set), &set);
}
void pinHost(Placement placement) {
  pinTo(0, placement == Placement::kScheduler ? CPU_SETSIZE : 1);
}
void pinPeer(Placement placement) {
  placement == Placement::kTwoCpus ? pinTo(1, 1) : pinHost(placement);
}

[[noreturn]] void echo(int fd) {
  char buffer[kRawBytes];
  while (::recv(fd, buffer, sizeof(buffer), MSG_WAITALL) == static_cast<ssize_t>(sizeof(buffer))) {
    if (::write(fd, buffer, sizeof(buffer)) < 0) {
      break;
    }
  }
  ::_exit(0);
}

// Both children are made before this process has an event loop.
struct Peers {
  Fd raw;
  Fd rpc;
};

Peers startPeers(Placement placement) {
  pinHost(placement);
  int raw[2];
  int rpc[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw) != 0 ||
      ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, rpc) != 0) {
    throw systemError("socketpair", errno);
  }
  if (::fork() == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pinPeer(placement);
    ::close(raw[0]);
    ::close(rpc[0]);
    echo(raw[1]);
  }
  if (::fork() == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pinPeer(placement);
    ::close(raw[0]);
    ::close(rpc[0]);
    IdleBackend backend;
    worker::ServeOptions options;
    options.rpcDescriptor = rpc[1];
    ::_exit(worker::serve(backend, options));
  }
  ::close(raw[1]);
  ::close(rpc[1]);
  return {Fd(raw[0]), Fd(rpc[0])};
}

void measure(const char* title, Peers peers, int rounds, double goal) {
  auto io = kj::setupAsyncIo();
  rpc::Connection connection(io, std::move(peers.rpc), rpc::Side::kClient, rpc::Limits());
  auto worker = connection.bootstrap<schema::Worker>();
  auto hello = worker.helloRequest();
  hello.initHost().setProtocolMajor(schema::PROTOCOL_MAJOR);
  rpc::throwIfError(hello.send().wait(io.waitScope));
  rpc::throwIfError(worker.confirmRequest().send().wait(io.waitScope));
  auto create = worker.createRequest();
  create.setEvents(kj::heap<NoEvents>());
  auto created = create.send().wait(io.waitScope);
  rpc::throwIfError(created);
  auto pausable = created.getAbilities().getPausable();

  std::vector<double> raw;
  std::vector<double> calls;
  char buffer[kRawBytes] = {};
  for (int round = -1; round < rounds; ++round) {
    double begin = now();
    for (int i = 0; i < kCallsPerRound; ++i) {
      if (::write(peers.raw.get(), buffer, sizeof(buffer)) < 0 ||
          ::recv(peers.raw.get(), buffer, sizeof(buffer), MSG_WAITALL) < 0) {
        throw systemError("ping-pong", errno);
      }
    }
    const double rawTime = (now() - begin) / kCallsPerRound;
    begin = now();
    for (int i = 0; i < kCallsPerRound; ++i) {
      rpc::throwIfError(pausable.pauseRequest().send().wait(io.waitScope));
    }
    const double callTime = (now() - begin) / kCallsPerRound;
    if (round >= 0) {  // the first one warms up
      raw.push_back(rawTime);
      calls.push_back(callTime);
    }
  }
  const double ratio = bench::median(calls) / bench::median(raw);
  std::printf("%-14s rpc %7.2f us   raw %7.2f us   ratio %5.2f   (goal <= %.1f: %s)\n", title, bench::median(calls),
              bench::median(raw), ratio, goal, ratio <= goal ? "met" : "missed");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  try {
    bench::printMachine();
    std::printf("round trip host <-> worker beside a raw socket pair, medians of %d rounds of %d\n", rounds,
                kCallsPerRound);
    measure("one CPU", startPeers(Placement::kOneCpu), rounds, 5.0);
    if (::sysconf(_SC_NPROCESSORS_ONLN) > 1) {
      measure("two CPUs", startPeers(Placement::kTwoCpus), rounds, 1.5);
    }
    // The scheduler may keep one of the pairs on one CPU and spread the other, which no ratio survives.
    measure("not pinned", startPeers(Placement::kScheduler), rounds, 1.5);
  } catch (const Error& error) {
    std::fprintf(stderr, "bench-rpc: %s\n", error.message().c_str());
    return 1;
  } catch (const kj::Exception& exception) {
    std::fprintf(stderr, "bench-rpc: %s\n", exception.getDescription().cStr());
    return 1;
  }
  return 0;
}
