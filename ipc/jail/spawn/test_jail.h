// Jails for tests with a prober in them, as the caller and as an ordinary user.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ipc/jail/spawn/prober.h"
#include "ipc/jail/spawn/spawn.h"
#include "vmmhost/fd.h"

namespace vmmhost::spawn {

// An argument of a system call: a number, text that it points to, or room that it points to and that is answered.
struct Argument {
  Argument(int number) : number(static_cast<std::uint64_t>(number)) {}  // NOLINT(google-explicit-constructor)
  Argument(unsigned long number) : number(number) {}                    // NOLINT(google-explicit-constructor)
  Argument(const char* string)
      : isPointer(true), text(string, string + std::char_traits<char>::length(string) + 1) {}  // NOLINT
  Argument(const std::string& string) : Argument(string.c_str()) {}  // NOLINT(google-explicit-constructor)
  static Argument room(std::size_t bytes) { return bytesOf(std::string(bytes, '\0')); }
  static Argument bytesOf(std::string bytes) {
    Argument argument(0);
    argument.isPointer = true;
    argument.text = std::move(bytes);
    return argument;
  }

  std::uint64_t number = 0;
  bool isPointer = false;
  std::string text;
};

// A network namespace that nobody is in, and the user namespace that owns it, if that is one of its own.
struct Network {
  Fd network;
  Fd user;
};

Network makeNetwork(bool hasUserNamespace);

class JailTest : public testing::Test {
 protected:
  JailTest();

  // Carries `body` out, and where the caller is root once more in a process that has become an ordinary user. Each with
  // a request for a prober in a plain jail. What fails in it fails the test.
  void asBoth(const std::function<void()>& body);
  bool isRoot() const;

  // A prober in a jail as request_ says, executed. What it was given orders by is new each time.
  Child start();
  std::string refusal();  // message and hint of the error with which it does not start; "started" if it does

  // The prober's answer; `result` is kDied if it was ended for it.
  static constexpr std::int64_t kDied = -1000;
  prober::Answer order(prober::Kind kind, long number = 0, std::vector<Argument> arguments = {});
  prober::Answer call(long number, std::vector<Argument> arguments = {});
  // -1 times the errno where it fails.
  std::int64_t resultOf(long number, std::vector<Argument> arguments = {});
  // Of a call in a child of the prober: the status of its end (waitpid).
  int statusInChild(long number, std::vector<Argument> arguments = {});
  // Whether the call ends a prober in a jail as request_ says by SIGSYS.
  bool isForbidden(long number, std::vector<Argument> arguments = {});

  static Child::Exit waitFor(Child& child);
  // What is seen from outside, one a line; "" if all is as it has to be.
  static std::string violationsOf(const Child& child) { return violationsOf(child.expectation()); }
  static std::string violationsOf(const confinement::Expectation& expected);

  Fd executable_, program_, null_, socket_, remote_;
  Request request_;

 private:
  void prepare();
};

// As long as it lives the prober's filters are not asked, so that the rest of the jail stands alone. Takes root; the
// prober starts no children meanwhile, whose end would stop it.
class WithoutFilters {
 public:
  explicit WithoutFilters(pid_t pid);
  ~WithoutFilters();
  WithoutFilters(const WithoutFilters&) = delete;
  WithoutFilters& operator=(const WithoutFilters&) = delete;

 private:
  pid_t pid_;
};

}  // namespace vmmhost::spawn
