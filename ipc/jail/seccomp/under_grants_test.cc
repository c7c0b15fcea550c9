// Calls made for real by children under sets of grants.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <functional>
#include <string>

#include "ipc/jail/seccomp/test_calls.h"
#include "tests/support/built.h"
#include "vmmhost/fd.h"
#include "vmmhost/seccomp.h"

namespace vmmhost::seccomp {
namespace {

// What `work` returned under the grants; 128 and the signal if it was ended by one.
int under(std::uint64_t grants, const std::function<int()>& work) {
  const auto program = programOf(grants);
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit noCore{0, 0};
    ::setrlimit(RLIMIT_CORE, &noCore);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || install(program, false) != 0) {
      ::_exit(120);
    }
    ::syscall(SYS_exit_group, work());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

constexpr int kForbidden = 128 + SIGSYS;

TEST(UnderGrants, listeningSocketThatWasInherited_isAcceptedFromWithTheGrantAlone) {
  const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)), 0) << "a free name";
  socklen_t length = sizeof address;
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  const auto accept = [&listener] {
    const int one = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return one >= 0 && ::write(one, "x", 1) == 1 ? 0 : 1;
  };
  for (const std::uint64_t grants : {grant::kAccept, std::uint64_t{0}, grant::kPairs | grant::kVsockSockets}) {
    const Fd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(under(grants, accept), (grants & grant::kAccept) != 0 ? 0 : kForbidden) << namesOf(grants);
  }
  EXPECT_EQ(under(grant::kAccept, [] { return ::socket(AF_UNIX, SOCK_STREAM, 0); }), kForbidden);
  EXPECT_EQ(under(grant::kAccept, [&listener] { return ::listen(listener.get(), 1); }), kForbidden);
}

TEST(UnderGrants, memoryFile_isMadeSealed) {
  const Fd known(::memfd_create("known", MFD_CLOEXEC | kNoExecSeal));
  if (!known) {
    GTEST_SKIP() << "a kernel before 6.3";
  }
  const auto make = [](unsigned flags) {
    return [flags] { return ::memfd_create("tested", MFD_CLOEXEC | flags) >= 0 ? 0 : 1; };
  };
  EXPECT_EQ(under(grant::kMemoryFiles, make(kNoExecSeal)), 0);
  EXPECT_EQ(under(grant::kMemoryFiles, make(kNoExecSeal | MFD_ALLOW_SEALING)), 0);
  EXPECT_EQ(under(grant::kMemoryFiles, make(0)), kForbidden);
  EXPECT_EQ(under(0, make(kNoExecSeal)), kForbidden);
}

TEST(UnderGrants, files_areReadAndNotWritten) {
  const auto open = [](int flags) {
    return [flags] { return ::syscall(SYS_openat, AT_FDCWD, "/", flags, 0600) >= 0 ? 0 : errno; };
  };
  EXPECT_EQ(under(grant::kFiles, open(O_RDONLY | O_DIRECTORY | O_CLOEXEC)), 0);
  EXPECT_EQ(under(grant::kFiles, open(O_RDWR)), EROFS);
  EXPECT_EQ(under(grant::kFiles, open(O_TMPFILE | O_RDWR)), EROFS);
  EXPECT_EQ(under(0, open(O_RDONLY)), kForbidden);
}

TEST(UnderGrants, pairs_areStreams) {
  const auto pair = [](int type) {
    return [type] {
      int both[2];
      return ::socketpair(AF_UNIX, type, 0, both) == 0 && ::write(both[0], "x", 1) == 1 ? 0 : 1;
    };
  };
  EXPECT_EQ(under(grant::kPairs, pair(SOCK_STREAM | SOCK_CLOEXEC)), 0);
  EXPECT_EQ(under(grant::kPairs, pair(SOCK_DGRAM)), kForbidden);
  EXPECT_EQ(under(grant::kAccept, pair(SOCK_STREAM)), kForbidden);
}

TEST(UnderGrants, loader_mapsCodeOfFiles_andNothingThatWasWritten) {
  const Fd code(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto map = [&code](int protection, int flags, bool isFile) {
    return [=, &code] {
      return ::mmap(nullptr, 4096, protection, flags, isFile ? code.get() : -1, 0) != MAP_FAILED ? 0 : 1;
    };
  };
  EXPECT_EQ(under(grant::kLoader, map(PROT_READ | PROT_EXEC, MAP_PRIVATE, true)), 0);
  EXPECT_EQ(under(0, map(PROT_READ | PROT_EXEC, MAP_PRIVATE, true)), kForbidden);
  EXPECT_EQ(under(grant::kLoader, map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, true)), kForbidden);
  EXPECT_EQ(under(grant::kLoader, map(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, false)), kForbidden);
}

// As the spawn stub starts it, by descriptor.
int statusOfShell(std::uint64_t grants, const char* script) {
  const std::string program = tests::built("bin/run-under-policy");
  const std::string bits = std::to_string(grants);
  const char* arguments[] = {program.c_str(), bits.c_str(), "/bin/sh", "-c", script, nullptr};
  const pid_t child = ::fork();
  if (child == 0) {
    ::execv(program.c_str(), const_cast<char* const*>(arguments));
    ::_exit(126);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(UnderGrants, dynamicProgram_runsWithFilesAndLoader_andStartsOthersWithPrograms) {
  constexpr std::uint64_t kDynamic = grant::kFiles | grant::kLoader;
  EXPECT_EQ(statusOfShell(kDynamic | grant::kPrograms, "test \"$(echo ok | cat)\" = ok"), 0);
  EXPECT_EQ(statusOfShell(kDynamic, "exec /bin/true"), kForbidden);
  EXPECT_EQ(statusOfShell(grant::kFiles | grant::kPrograms, "exit 0"), kForbidden) << "nothing maps the C library";
}

}  // namespace
}  // namespace vmmhost::seccomp
