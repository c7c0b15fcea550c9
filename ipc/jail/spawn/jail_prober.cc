// The program that tests start in a jail to try whatever it can: it carries out system calls as it is told (prober.h).
// Static and without sanitizers, so that it lives in an empty root in every build.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "ipc/jail/spawn/prober.h"
#include "vmmhost/error.h"
#include "vmmhost/programs.h"
#include "vmmhost/setup_stage.h"

namespace {

using vmmhost::spawn::prober::Answer;
using vmmhost::spawn::prober::Kind;
using vmmhost::spawn::prober::Order;

template <typename Value, typename Move>
bool moveAll(Value& value, Move move) {
  auto* at = reinterpret_cast<char*>(&value);
  for (std::size_t left = sizeof(value); left > 0;) {
    const ssize_t moved = move(3, at, left);
    if (moved > 0) {
      at += moved;
      left -= static_cast<std::size_t>(moved);
    } else if (moved == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

long carryOut(Order& order) {
  unsigned long values[6];
  for (int i = 0; i < 6; ++i) {
    values[i] = order.arguments[i];
    if ((order.pointers >> i & 1) != 0) {
      values[i] = reinterpret_cast<unsigned long>(order.data + order.arguments[i]);
    }
  }
  return ::syscall(static_cast<long>(order.number), values[0], values[1], values[2], values[3], values[4], values[5]);
}

long callInChild(Order& order) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::_exit(carryOut(order) < 0 ? errno : 0);
  }
  return pid;
}

long endSetup(Answer& answer) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_capset, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  try {
    vmmhost::endSetup(filter);
    return 0;
  } catch (const vmmhost::Error& error) {
    std::strncpy(reinterpret_cast<char*>(answer.data), error.message().c_str(), sizeof(answer.data) - 1);
    return 1;
  }
}

void* stay(void*) {
  for (;;) {
    ::ppoll(nullptr, 0, nullptr, nullptr);
  }
}

long startThread() {
  pthread_t thread;
  return ::pthread_create(&thread, nullptr, stay, nullptr);
}

}  // namespace

int main() {
  Order order;
  while (moveAll(order, ::read)) {
    Answer answer;
    errno = 0;
    switch (order.kind) {
      case Kind::kCall:
        answer.result = carryOut(order);
        break;
      case Kind::kCallInChild:
        answer.result = callInChild(order);
        break;
      case Kind::kEndSetup:
        answer.result = endSetup(answer);
        break;
      case Kind::kStartThread:
        answer.result = startThread();
        break;
      case Kind::kProgram:
        answer.result = vmmhost::programs::descriptorOf(static_cast<std::size_t>(order.arguments[0]));
        break;
    }
    answer.error = errno;
    if (order.kind == Kind::kCall) {
      std::memcpy(answer.data, order.data, sizeof(answer.data));
    }
    if (!moveAll(answer, ::write)) {
      return 2;
    }
  }
  return 0;
}
