#include "ipc/rpc/received.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include "vmmhost/error.h"

namespace vmmhost::rpc::received {
namespace {

// By the number of the substitute: numbers are the process's.
struct Aside {
  std::mutex mutex;
  std::map<int, Fd> waiting;
};

Aside& aside() {
  static Aside all;
  return all;
}

}  // namespace

kj::AutoCloseFd putAside(kj::AutoCloseFd descriptor) {
  const int substitute = ::eventfd(0, EFD_CLOEXEC);
  if (substitute < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      return kj::AutoCloseFd();
    }
    throw systemError("taking over a descriptor", errno);
  }
  Aside& all = aside();
  const std::lock_guard lock(all.mutex);
  // What nobody took is closed when its substitute's number comes again.
  all.waiting[substitute] = Fd(descriptor.release());
  return kj::AutoCloseFd(substitute);
}

Fd take(int substitute) noexcept {
  Aside& all = aside();
  const std::lock_guard lock(all.mutex);
  auto found = all.waiting.extract(substitute);
  return found ? std::move(found.mapped()) : Fd();
}

}  // namespace vmmhost::rpc::received
