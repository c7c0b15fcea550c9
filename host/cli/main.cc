// vmmhost: the command.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "host/cli/base/exit_codes.h"
#include "host/cli/command_line.h"
#include "host/cli/verbs/verbs.h"
#include "ipc/jail/spawn/limits.h"

namespace vmmhost::cli {
namespace {

// Descriptors 0, 1 and 2 are there, whatever started us: what is opened later must not become one of them.
void openStandardDescriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) {
      ::_exit(kExitFailed);
    }
  }
  ::signal(SIGCHLD, SIG_DFL);  // where it is ignored a child's end cannot be asked for
}

}  // namespace
}  // namespace vmmhost::cli

int main(int argc, char** argv) {
  vmmhost::cli::openStandardDescriptors();
  // A limit of file sizes (ulimit -f) is an error of a write, not the end of the command.
  ::signal(SIGXFSZ, SIG_IGN);
  vmmhost::spawn::raiseOwnLimits();
  return vmmhost::cli::runCommandLine(vmmhost::cli::allVerbs(), argc, argv);
}
