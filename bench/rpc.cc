// Round trip between host and worker over Cap'n Proto, beside raw ping-pongs over a socket pair, interleaved in one
// run: both processes on one CPU, on two, and left to the scheduler. One raw pair waits in read(), the other in
// epoll_wait() as every event loop does. A free scheduler keeps the first on one CPU and spreads the second now and
// then, so only the placed pairs have a goal.
//
//   bench-rpc [ROUNDS]
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
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

enum class Waiting { kRead, kEpoll };

// One end of a raw ping-pong.
class RawEnd {
 public:
  RawEnd(Fd socket, Waiting waiting) : socket_(std::move(socket)) {
    if (waiting == Waiting::kEpoll) {
      poll_.reset(::epoll_create1(EPOLL_CLOEXEC));
      epoll_event event = {};
      event.events = EPOLLIN | EPOLLET;
      if (::fcntl(socket_.get(), F_SETFL, O_NONBLOCK) != 0 ||
          ::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, socket_.get(), &event) != 0) {
        throw systemError("epoll", errno);
      }
    }
  }
  bool send() { return ::write(socket_.get(), buffer_, kRawBytes) == static_cast<ssize_t>(kRawBytes); }
  bool receive() {
    ssize_t got;
    while ((got = ::read(socket_.get(), buffer_, kRawBytes)) < 0 && errno == EAGAIN && poll_) {
      epoll_event event;
      ::epoll_wait(poll_.get(), &event, 1, -1);
    }
    return got == static_cast<ssize_t>(kRawBytes);
  }

 private:
  Fd socket_;
  Fd poll_;
  char buffer_[kRawBytes] = {};
};

template <typename Body>
Fd startPeer(Placement placement, Body body) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw systemError("socketpair", errno);
  }
  if (::fork() == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pinPeer(placement);
    ::close(ends[0]);
    body(Fd(ends[1]));
    ::_exit(0);
  }
  ::close(ends[1]);
  return Fd(ends[0]);
}

Fd startEcho(Placement placement, Waiting waiting) {
  return startPeer(placement, [waiting](Fd socket) {
    RawEnd end(std::move(socket), waiting);
    while (end.receive() && end.send()) {
    }
  });
}

Fd startWorker(Placement placement) {
  return startPeer(placement, [](Fd socket) {
    IdleBackend backend;
    worker::ServeOptions options;
    options.rpcDescriptor = socket.get();
    worker::serve(backend, options);
    ::_exit(0);
  });
}

// `goal` is for the ratio to the pair that waits in read(); 0: none.
void measure(const char* title, Placement placement, int rounds, double goal) {
  pinHost(placement);
  // The children are made before this process has an event loop.
  RawEnd reading(startEcho(placement, Waiting::kRead), Waiting::kRead);
  RawEnd polling(startEcho(placement, Waiting::kEpoll), Waiting::kEpoll);
  Fd workerSocket = startWorker(placement);
  auto io = kj::setupAsyncIo();
  rpc::Connection connection(io, std::move(workerSocket), rpc::Side::kClient, rpc::Limits());
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

  const auto timed = [](auto&& roundTrip) {
    const double begin = now();
    for (int i = 0; i < kCallsPerRound; ++i) {
      roundTrip();
    }
    return (now() - begin) / kCallsPerRound;
  };
  const auto pingPong = [&timed](RawEnd& end) {
    return timed([&end]() {
      if (!end.send() || !end.receive()) {
        throw systemError("ping-pong", errno);
      }
    });
  };
  std::vector<double> readTimes;
  std::vector<double> pollTimes;
  std::vector<double> calls;
  for (int round = -1; round < rounds; ++round) {
    const double readTime = pingPong(reading);
    const double pollTime = pingPong(polling);
    const double callTime = timed([&]() { rpc::throwIfError(pausable.pauseRequest().send().wait(io.waitScope)); });
    if (round >= 0) {  // the first one warms up
      readTimes.push_back(readTime);
      pollTimes.push_back(pollTime);
      calls.push_back(callTime);
    }
  }
  const double call = bench::median(calls);
  const double toRead = call / bench::median(readTimes);
  const double toPoll = call / bench::median(pollTimes);
  std::printf("%-11s rpc %7.2f us   raw, read() %7.2f us, ratio %5.2f   raw, epoll_wait() %7.2f us, ratio %5.2f\n",
              title, call, bench::median(readTimes), toRead, bench::median(pollTimes), toPoll);
  if (goal > 0) {
    std::printf("%-11s goal: at most %.1f x read(): %s\n", "", goal, toRead <= goal ? "met" : "missed");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  try {
    bench::printMachine();
    std::printf("round trip host <-> worker beside a raw socket pair, medians of %d rounds of %d\n", rounds,
                kCallsPerRound);
    measure("one CPU", Placement::kOneCpu, rounds, 5.0);
    if (::sysconf(_SC_NPROCESSORS_ONLN) > 1) {
      measure("two CPUs", Placement::kTwoCpus, rounds, 1.5);
    }
    measure("not pinned", Placement::kScheduler, rounds, 0);
  } catch (const Error& error) {
    std::fprintf(stderr, "bench-rpc: %s\n", error.message().c_str());
    return 1;
  } catch (const kj::Exception& exception) {
    std::fprintf(stderr, "bench-rpc: %s\n", exception.getDescription().cStr());
    return 1;
  }
  return 0;
}
