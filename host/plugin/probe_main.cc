// vmmhost-plugin-probe PATH NAME MEASURE: loads the plugin that is open as descriptor 4, probes it, writes one result
// to descriptor 3. A program of its own, because the plugin may crash or hang, and because a program that embeds the
// host must not be forked.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string_view>

#include "host/plugin/library.h"
#include "host/plugin/log_sink.h"

namespace {

constexpr int kResult = 3;
constexpr int kPlugin = 4;

using namespace vmmhost;
using namespace vmmhost::plugin;

ProbeResult probe(const char* path, const char* name, bool measure) {
  const LogSink sink = [](int level, std::string_view line) {
    const std::string text = probeLogLine(level, line);
    (void)!::write(STDERR_FILENO, text.data(), text.size());  // does not block: what has no room is lost
  };
  try {
    const Library library = loadLibrary(kPlugin, path, name, sink);
    ::close(kPlugin);
    return callProbe(library, measure, sink);
  } catch (const Error& error) {
    ProbeResult result;
    result.info.name = name;
    result.info.error = error;
    return result;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 || !isBackendName(argv[2])) {
    constexpr std::string_view kUsage = "vmmhost-plugin-probe is started by vmmhost\n";
    (void)!::write(STDERR_FILENO, kUsage.data(), kUsage.size());
    return 2;
  }
  // A crash is an answer, not something to look into; and nobody is left to answer once the host is gone.
  const rlimit noCore = {0, 0};
  ::setrlimit(RLIMIT_CORE, &noCore);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd reader = {kResult, 0, 0};
  if (::poll(&reader, 1, 0) < 0 || (reader.revents & (POLLERR | POLLNVAL)) != 0) {
    return 2;
  }
  ::fcntl(kResult, F_SETFD, FD_CLOEXEC);
  ::fcntl(kPlugin, F_SETFD, FD_CLOEXEC);
  const std::string bytes = encodeProbeResult(probe(argv[1], argv[2], std::string_view(argv[3]) == "1"));
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const ssize_t count = ::write(kResult, rest.data(), rest.size());
    if (count < 0 && errno != EINTR) {
      return 2;
    }
    rest.remove_prefix(count < 0 ? 0 : static_cast<std::size_t>(count));
  }
  // Without destructors: those of the plugin have nothing to add.
  ::_exit(0);
}
