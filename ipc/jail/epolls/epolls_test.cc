#include "vmmhost/epolls.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace vmmhost::epolls {
namespace {

TEST(Epolls, argument_isUnderstood) {
  for (const Inherited& epolls : {Inherited{4, 1}, Inherited{36, 128}, Inherited{199, 1}}) {
    EXPECT_EQ(parseArgument(argumentFor(epolls)), epolls);
  }
}

TEST(Epolls, otherArguments_tellOfNone) {
  for (const char* text : {"", "epolls=", "epolls=4", "epolls=4+", "epolls=+4", "epolls=4+0", "epolls=4+129",
                           "epolls=2+1", "epolls=-4+1", "epolls=200+1", "epolls=199+2", "epolls=4+1x", "epolls=4x+1",
                           "rings=4+1", "epolls=99999999999+1", "epolls=4+99999999999"}) {
    EXPECT_FALSE(parseArgument(text)) << text;
  }
}

// What becomes of epoll_create1() is the whole process's business: in a child each time.
int inChild(int (*work)()) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(work());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

bool take(std::vector<std::string> arguments) {
  std::vector<char*> words;
  for (std::string& argument : arguments) {
    words.push_back(argument.data());
  }
  return takeInherited(words);
}

TEST(Epolls, inherited_areGivenOutOnce_andThenThereAreNone) {
  EXPECT_EQ(inChild([] {
              const int first = ::epoll_create1(0);
              if (::dup2(first, 150) != 150 || ::dup2(first, 151) != 151 || !take({"worker", "epolls=150+2"})) {
                return 1;
              }
              if (::epoll_create1(EPOLL_CLOEXEC) != 150 || ::epoll_create1(EPOLL_CLOEXEC) != 151) {
                return 2;
              }
              for (int attempt = 0; attempt < 3; ++attempt) {
                errno = 0;
                if (::epoll_create1(EPOLL_CLOEXEC) != -1 || errno != EMFILE) {
                  return 3;
                }
              }
              return ::fcntl(150, F_GETFD) == FD_CLOEXEC && ::fcntl(151, F_GETFD) == FD_CLOEXEC ? 0 : 4;
            }),
            0);
}

TEST(Epolls, withoutAnArgumentOfTheHost_newOnesAreMade) {
  EXPECT_EQ(
      inChild([] {
        // The plan's own words are further in front.
        if (take({}) || take({"worker"}) || take({"epolls=150+2"}) || take({"worker", "epolls=150+2", "a", "b"})) {
          return 1;
        }
        const int one = ::epoll_create1(EPOLL_CLOEXEC);
        const int other = ::epoll_create1(EPOLL_CLOEXEC);
        epoll_event event{};
        return one >= 0 && other > one && ::epoll_ctl(one, EPOLL_CTL_ADD, other, &event) == 0 ? 0 : 2;
      }),
      0);
}

}  // namespace
}  // namespace vmmhost::epolls
