#include "worker-kvm/threads/thread.h"

#include <sys/prctl.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

#include "vmmhost/error.h"

namespace vmmhost::kvm::threads {

namespace {

constexpr int kKickSignal = SIGUSR2;  // KJ reserves SIGUSR1

#ifdef VMMHOST_SANITIZED
constexpr std::size_t kStackBytes = 1024 * 1024;  // sanitizers' frames are large
#else
constexpr std::size_t kStackBytes = 128 * 1024;  // a signal frame with AVX-512 and AMX state takes 12 KiB
#endif

// The C library registers each thread for them, and nothing here uses them: whenever it is scheduled, the kernel would
// write to its memory.
void endRestartableSequences() {
#ifdef RSEQ_SIG
  auto* const area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  // As many bytes as were registered: not __rseq_size, which counts those that are in use. Refused where none are.
  ::syscall(__NR_rseq, area, sizeof(struct rseq), RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
#endif
}

void ignoreKick(int) {
}

// What the signal does is a property of the process; installing it again changes nothing.
void installKickHandler() {
  struct sigaction action {};
  action.sa_handler = ignoreKick;  // no SA_RESTART: system calls are to end
  sigfillset(&action.sa_mask);
  sigaction(kKickSignal, &action, nullptr);
}

}  // namespace

struct Thread::Start {
  std::string name;
  std::function<void()> body;
};

Thread::Thread(std::string name, std::function<void()> body)
    : start_(std::make_unique<Start>(Start{std::move(name), std::move(body)})) {
  installKickHandler();
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  const int result = pthread_create(&thread_, &attributes, &Thread::enter, start_.get());
  pthread_attr_destroy(&attributes);
  if (result != 0) {
    throw systemError("starting thread " + start_->name, result);
  }
}

Thread::~Thread() {
  pthread_join(thread_, nullptr);
}

void Thread::kick() noexcept {
  pthread_kill(thread_, kKickSignal);
}

void* Thread::enter(void* argument) {
  const auto* start = static_cast<const Start*>(argument);
  sigset_t blocked;
  sigfillset(&blocked);
  sigdelset(&blocked, kKickSignal);
  pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
  prctl(PR_SET_NAME, start->name.c_str());
  endRestartableSequences();
  start->body();
  return nullptr;
}

}  // namespace vmmhost::kvm::threads
