// Programs that a jailed process may start: these files, by their descriptors, and nothing else.
#include "vmmhost/programs.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "ipc/jail/spawn/test_jail.h"
#include "tests/support/built.h"

namespace vmmhost::spawn {
namespace {

class ProgramsTest : public JailTest {
 protected:
  void prepareProgram(std::size_t count = 1) {
    request_.programs.assign(count, program_.get());
    request_.jail.rlimits = {{RLIMIT_NPROC, kMaxProcesses}};
  }
  static constexpr std::uint64_t kMaxProcesses = 16;
  int descriptorOf(int index = 0) { return static_cast<int>(order(prober::Kind::kProgram, 0, {index}).result); }
  static std::vector<Argument> execution(Argument descriptor, const char* path = "") {
    return {std::move(descriptor), path, 0, 0, AT_EMPTY_PATH};
  }
  static bool isKilled(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }
};

TEST_F(ProgramsTest, program_isExecutedByItsDescriptor) {
  asBoth([&] {
    prepareProgram();
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "");
    const int descriptor = descriptorOf();
    EXPECT_EQ(descriptor, 257);
    const int status = statusInChild(SYS_execveat, execution(descriptor));
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 42) << "43: it holds descriptors of programs";
    EXPECT_EQ(descriptorOf(1), -1);
  });
}

TEST_F(ProgramsTest, numbers_lieBehindWhateverLimitThereIs) {
  for (const int limit : {64, 100, 243, 244, 251, 256, 260, 299, 900}) {
    prepareProgram(programs::kMaxPrograms);
    request_.jail.maxDescriptors = limit;
    const Child child = start();
    EXPECT_EQ(violationsOf(child), "") << limit;
    rlimit own = {};
    ASSERT_EQ(::prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &own), 0);
    for (int index = 0; index < static_cast<int>(programs::kMaxPrograms); ++index) {
      EXPECT_EQ(descriptorOf(index), static_cast<int>(own.rlim_cur) + 1 + index) << limit;
    }
    EXPECT_EQ(WEXITSTATUS(statusInChild(SYS_execveat, execution(descriptorOf(7)))), 42) << limit;
  }
}

TEST_F(ProgramsTest, programsThatRun_areLookedAt) {
  asBoth([&] {
    prepareProgram();
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd reader(ends[0]);
    Fd writer(ends[1]);
    request_.descriptors = {{reader.get(), 5}};
    const Child child = start();
    const std::int64_t pid = order(prober::Kind::kCallInChild, SYS_execveat, execution(descriptorOf())).result;
    EXPECT_GT(pid, 0);
    confinement::Expectation expected = child.expectation();
    EXPECT_EQ(violationsOf(expected), "");
    // Whether it is still the prober's copy or executed already, it is no other file.
    expected.programs[0].inode += 1;
    expected.executableInode += 1;
    EXPECT_NE(violationsOf(expected).find("which is none of the planned programs"), std::string::npos);
    writer.reset();
    const prober::Answer ended = call(SYS_wait4, {static_cast<int>(pid), Argument::room(sizeof(int)), 0, 0});
    EXPECT_EQ(ended.result, pid);
  });
}

TEST_F(ProgramsTest, childrenAreEnded_andOthersAreOutOfReach) {
  asBoth([&] {
    prepareProgram();
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd reader(ends[0]);
    const Fd writer(ends[1]);
    request_.descriptors = {{reader.get(), 5}};
    const Child child = start();
    const int pid = static_cast<int>(order(prober::Kind::kCallInChild, SYS_execveat, execution(descriptorOf())).result);
    EXPECT_EQ(resultOf(SYS_kill, {pid, SIGKILL}), 0);
    EXPECT_EQ(resultOf(SYS_wait4, {pid, 0, 0, 0}), pid);
    EXPECT_EQ(resultOf(SYS_kill, {static_cast<int>(::getpid()), 0}), -ESRCH);
  });
}

TEST_F(ProgramsTest, childrenAreAsFewAsPlanned) {
  asBoth([&] {
    prepareProgram();
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd reader(ends[0]);
    const Fd writer(ends[1]);
    request_.descriptors = {{reader.get(), 5}};
    const Child child = start();
    const int descriptor = descriptorOf();
    std::uint64_t children = 0;
    prober::Answer answer;
    for (; children <= kMaxProcesses; ++children) {
      answer = order(prober::Kind::kCallInChild, SYS_execveat, execution(descriptor));
      if (answer.result < 0) {
        break;
      }
    }
    EXPECT_EQ(children, kMaxProcesses - 1);  // and itself
    EXPECT_EQ(answer.error, EAGAIN);
    EXPECT_EQ(violationsOf(child), "");
  });
}

TEST_F(ProgramsTest, nothingElseIsExecuted) {
  asBoth([&] {
    prepareProgram();
    std::string pattern = testing::TempDir() + "vmmhost-programs-XXXXXX";
    const std::string folder = ::mkdtemp(pattern.data());
    ::chmod(folder.c_str(), 0755);
    const std::string copy = folder + "/program";
    const Fd made(::open(copy.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0755));
    char bytes[65536];
    off_t at = 0;
    for (ssize_t got = 0; (got = ::pread(program_.get(), bytes, sizeof(bytes), at)) > 0; at += got) {
      ASSERT_EQ(::write(made.get(), bytes, static_cast<std::size_t>(got)), got);
    }
    ::fchmod(made.get(), 0755);
    const Fd opened(::open(copy.c_str(), O_RDONLY | O_CLOEXEC));
    request_.jail.root = Jail::Root::kBinds;
    request_.jail.binds = {{.source = copy, .target = "/program", .descriptor = opened.get(), .executable = true}};
    request_.descriptors = {{opened.get(), 6}};
    {
      const Child child = start();
      const int descriptor = descriptorOf();
      // The path of an executable file that is no planned program: Landlock alone stands in the way.
      EXPECT_EQ(WEXITSTATUS(statusInChild(SYS_execveat, execution(descriptor, "/program"))), EACCES);
      EXPECT_TRUE(isKilled(statusInChild(SYS_execveat, execution(6))));
      EXPECT_TRUE(isKilled(statusInChild(SYS_execveat, execution(descriptor + 1))));
      EXPECT_TRUE(isKilled(statusInChild(SYS_execve, {"/program", 0, 0})));
      EXPECT_TRUE(isKilled(statusInChild(SYS_execveat, {descriptor, "", 0, 0, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW})));
      // Spent once it is closed: the number is above the limit.
      EXPECT_EQ(resultOf(SYS_close, {descriptor}), 0);
      EXPECT_EQ(WEXITSTATUS(statusInChild(SYS_execveat, execution(descriptor))), EBADF);
      EXPECT_EQ(violationsOf(child).rfind("its descriptors are ", 0), 0u);
    }
    for (const unsigned long flags :
         {static_cast<unsigned long>(SIGCHLD | CLONE_NEWUSER), static_cast<unsigned long>(SIGCHLD | CLONE_NEWNET),
          static_cast<unsigned long>(SIGCHLD | CLONE_PARENT), static_cast<unsigned long>(SIGCHLD | CLONE_FILES),
          static_cast<unsigned long>(SIGKILL)}) {
      EXPECT_TRUE(isForbidden(SYS_clone, {flags, 0, 0, 0, 0})) << flags;
    }
    std::filesystem::remove_all(folder);
  });
}

TEST_F(ProgramsTest, withoutFilters_numbersOfProgramsAreTakenByNothing) {
  if (!isRoot()) {
    GTEST_SKIP() << "only root can lift filters";
  }
  prepareProgram();
  const Child child = start();
  const int descriptor = descriptorOf();
  const WithoutFilters lifted(child.pid());
  const std::int64_t memory = resultOf(SYS_memfd_create, {"program", static_cast<int>(MFD_CLOEXEC)});
  ASSERT_GE(memory, 0);
  EXPECT_EQ(resultOf(SYS_dup3, {static_cast<int>(memory), descriptor, 0}), -EBADF);
  EXPECT_EQ(resultOf(SYS_fcntl, {static_cast<int>(memory), F_DUPFD, descriptor}), -EINVAL);
  const rlimit higher = {4096, 4096};
  const std::string bytes(reinterpret_cast<const char*>(&higher), sizeof(higher));
  EXPECT_EQ(resultOf(SYS_prlimit64, {0, RLIMIT_NOFILE, Argument::bytesOf(bytes), 0}), -EPERM);
}

TEST_F(ProgramsTest, withoutPrograms_nothingIsStarted) {
  EXPECT_TRUE(isForbidden(SYS_fork));
  EXPECT_TRUE(isForbidden(SYS_execveat, execution(257)));
  EXPECT_TRUE(isForbidden(SYS_kill, {1, 0}));
}

TEST_F(ProgramsTest, whatCannotBeProtected_isRefused) {
  prepareProgram();
  request_.jail.without = {"landlock"};
  EXPECT_EQ(refusal(),
            "the prober cannot do without its landlock: it starts programs, and Landlock says which | leave out "
            "--without landlock");
  request_.jail.without.clear();
  request_.jail.root = Jail::Root::kSystem;
  EXPECT_NE(refusal().find("has programs besides all those of the system"), std::string::npos);
  request_.jail.root = Jail::Root::kEmpty;
  request_.programs = {null_.get()};
  request_.jail.proc = true;
  EXPECT_NE(refusal().find("has programs and a /proc, where a file of memory has a path"), std::string::npos);
  request_.jail.proc = false;
  EXPECT_NE(refusal().find("has a program that is no regular file"), std::string::npos);
  prepareProgram();
  request_.jail.rlimits.clear();
  EXPECT_NE(refusal().find("has programs, and no limit of processes"), std::string::npos);
  prepareProgram(programs::kMaxPrograms + 1);
  EXPECT_NE(refusal().find("has more than 8 programs"), std::string::npos);
}

}  // namespace
}  // namespace vmmhost::spawn
