// flood-client SOCKET FLOOD MILLISECONDS TOTAL CONNECTIONS: attacks a control socket with one of the floods of
// floods.h, on so many connections at once, over and over for that time and until TOTAL connections were made. Prints
// how many were made, how many the other side cut, and how many bytes it took.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/hostile/flood/floods.h"
#include "vmmhost/fd.h"

namespace vmmhost::hostile {
namespace {

// Of a busy machine that owes us the end of a connection, or its place in the queue.
constexpr auto kPatience = std::chrono::seconds(20);

struct Attack {
  const char* path;
  const Flood* flood;
  Clock::time_point end;
  std::uint64_t total;
  std::atomic<std::uint64_t> connections{0};
  std::atomic<std::uint64_t> cuts{0};
  std::atomic<std::uint64_t> bytes{0};
};

Fd connectTo(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return {};
  }
  return socket;
}

// At least one connection; and one that must be cut goes on until it is.
void attack(Attack& attack) {
  const bool awaitsCut = attack.flood->onControl == End::kCut;
  bool isFirst = true;
  while (Clock::now() < attack.end || (attack.connections < attack.total && attack.connections > 0) ||
         (isFirst && Clock::now() < attack.end + kPatience)) {
    const Fd socket = connectTo(attack.path);
    if (!socket) {  // its queue is full, or it is gone
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    isFirst = false;
    ++attack.connections;
    Wire wire(socket.get(), awaitsCut ? attack.end + kPatience : attack.end);
    attack.flood->run(wire, controlDoor());
    attack.bytes += wire.sentBytes();
    attack.cuts += wire.isCut() ? 1 : 0;
  }
}

}  // namespace
}  // namespace vmmhost::hostile

int main(int argc, char** argv) {
  using namespace vmmhost::hostile;
  ::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  ::setrlimit(RLIMIT_NOFILE, &files);
  const Flood* flood = argc == 6 ? findFlood(argv[2]) : nullptr;
  if (flood == nullptr) {
    return 2;
  }
  Attack orders{argv[1], flood, Clock::now() + std::chrono::milliseconds(std::atoi(argv[3])),
                static_cast<std::uint64_t>(std::atoll(argv[4]))};
  std::vector<std::thread> threads;
  for (int i = 0; i < std::atoi(argv[5]); ++i) {
    threads.emplace_back([&] { attack(orders); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::printf("%llu %llu %llu\n", static_cast<unsigned long long>(orders.connections),
              static_cast<unsigned long long>(orders.cuts), static_cast<unsigned long long>(orders.bytes));
  return 0;
}
