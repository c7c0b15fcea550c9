// The host's console as a guest and its clients see it: real sockets on both sides.
#include "host/vm/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "ipc/rpc/connection.h"
#include "vmmhost/error.h"

namespace vmmhost::vm {
namespace {

namespace fs = std::filesystem;
using Stream = kj::Own<kj::AsyncIoStream>;

constexpr std::size_t kMuch = Console::kRingBytes / 4;
constexpr auto kPatient = 30 * kj::SECONDS;

// Each 8 bytes of it tell their own place.
std::string counted(std::size_t bytes) {
  std::string text;
  text.reserve(bytes + 8);
  char word[24];
  for (std::size_t place = 0; place < bytes; place += 8) {
    std::snprintf(word, sizeof word, "%07zx\n", place / 8);
    text += word;
  }
  text.resize(bytes);
  return text;
}

std::ptrdiff_t descriptors() {
  return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
}

class ConsoleTest : public ::testing::Test {
 protected:
  ConsoleTest() {
    std::string pattern = ::testing::TempDir() + "vmmhost-console-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    make(nullptr);
  }
  ~ConsoleTest() noexcept override {
    console_.reset();
    fs::remove_all(folder_);
  }

  void make(std::unique_ptr<RotatingFile> file) {
    rpc::SocketPair pair = rpc::makeSocketPair(rpc::RemoteEnd::kNonBlocking);
    guest_ = stream(std::move(pair.remote));
    console_ = std::make_unique<Console>(io_, std::move(pair.local), std::move(file));
  }
  Stream stream(Fd socket) { return io_.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(socket.release())); }
  Stream attach(std::uint32_t replayBytes = 0, bool input = true) {
    return stream(console_->attach(replayBytes, input));
  }
  std::vector<Stream> attachAsManyAsThereMayBe() {
    std::vector<Stream> clients;
    while (clients.size() < Console::kMaxClients) {
      clients.push_back(attach());
    }
    return clients;
  }

  void write(Stream& to, const std::string& text) { to->write(text.data(), text.size()).wait(io_.waitScope); }
  // So many bytes, or fewer where there is an end before.
  std::string read(Stream& from, std::size_t bytes) {
    std::string text(bytes, '\0');
    text.resize(from->tryRead(text.data(), bytes, bytes).wait(io_.waitScope));
    return text;
  }
  std::string readToTheEnd(Stream& from) { return from->readAllText().wait(io_.waitScope).cStr(); }
  // The guest says it while this client follows, so that all of it has come to the console.
  void sayTo(Stream& follower, const std::string& text) {
    constexpr std::size_t kAtATime = 8192;
    for (std::size_t said = 0; said < text.size(); said += kAtATime) {
      const std::string part = text.substr(said, kAtATime);
      write(guest_, part);
      ASSERT_EQ(read(follower, part.size()), part);
    }
  }
  void say(const std::string& text) {
    Stream follower = attach(0, false);
    sayTo(follower, text);
  }
  // Types until nobody takes any more, and returns how much that was.
  std::size_t fillInput(Stream& client) {
    const std::string page(4096, 'i');
    std::size_t typed = 0;
    for (std::size_t before = 1; before != typed;) {
      before = typed;
      for (ssize_t sent = 0; (sent = send(client, page)) > 0;) {
        typed += static_cast<std::size_t>(sent);
      }
      kj::Promise<void>(kj::NEVER_DONE).poll(io_.waitScope);
    }
    return typed;
  }
  // As far as there is room, while the console does nothing.
  static ssize_t send(Stream& client, const std::string& text) {
    return ::send(KJ_ASSERT_NONNULL(client->getFd()), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  template <typename Condition>
  bool becomes(Condition condition) {
    auto& timer = io_.provider->getTimer();
    const auto end = timer.now() + kPatient;
    while (!condition() && timer.now() < end) {
      timer.afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
    return condition();
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::string folder_;
  Stream guest_;
  std::unique_ptr<Console> console_;
};

TEST_F(ConsoleTest, output_comesToEachClient_fromWhenItCame_andFromBeforeAsAskedFor) {
  say("before ");
  Stream now = attach();
  Stream some = attach(3);
  Stream all = attach(1000);
  write(guest_, "after");
  EXPECT_EQ(read(now, 5), "after");
  EXPECT_EQ(read(some, 8), "re after");
  EXPECT_EQ(read(all, 12), "before after");
}

TEST_F(ConsoleTest, whatWasSaidBefore_isKeptAsFarAsTheRingHoldsIt) {
  const std::string said = counted(Console::kRingBytes + 4096 + 24);
  say(said);
  Stream late = attach(0xffffffff);
  EXPECT_TRUE(read(late, Console::kRingBytes) == said.substr(said.size() - Console::kRingBytes));
  write(guest_, "and more");
  EXPECT_EQ(read(late, 8), "and more");
}

TEST_F(ConsoleTest, slowClient_losesTheOldest_isToldHowMuch_andHoldsUpNobody) {
  Stream slow = attach();
  Stream other = attach();
  const std::string said = counted(3 * Console::kRingBytes);
  sayTo(other, said);
  auto finished = console_->finish(kPatient).eagerlyEvaluate(nullptr);
  const std::string got = readToTheEnd(slow);
  finished.wait(io_.waitScope);

  std::smatch lost;
  ASSERT_TRUE(std::regex_search(got, lost, std::regex("\r\n\\[vmmhost: ([0-9]+) bytes of console output lost\\]\r\n")));
  const std::string before = lost.prefix();
  const std::string after = lost.suffix();
  EXPECT_TRUE(before == said.substr(0, before.size()));
  EXPECT_TRUE(after == said.substr(said.size() - Console::kRingBytes));
  EXPECT_EQ(before.size() + std::stoul(lost[1]) + after.size(), said.size());
  EXPECT_LT(before.size(), kMuch * 2) << "a socket that keeps much keeps what is old";
}

TEST_F(ConsoleTest, output_isKeptInFilesThatDoNotGrow) {
  constexpr std::size_t kBound = 64 * 1024;
  const Fd folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  make(std::make_unique<RotatingFile>(folder.get(), "console.log", kBound));
  const std::string said = counted(5 * kBound + 100 * 8);
  say(said);
  const auto content = [&](const char* name) {
    std::ifstream file(folder_ + name);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string older = content("/console.log.1");
  const std::string newer = content("/console.log");
  EXPECT_LE(older.size(), kBound);
  EXPECT_LE(newer.size(), kBound);
  EXPECT_GT(older.size(), kBound / 2);
  EXPECT_TRUE(older + newer == said.substr(said.size() - older.size() - newer.size()));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2);
}

TEST_F(ConsoleTest, input_ofEachWhoMayType_comesToTheGuest) {
  Stream one = attach();
  Stream other = attach();
  Stream reader = attach(0, false);
  write(reader, "unheard");
  write(one, "one");
  EXPECT_EQ(read(guest_, 3), "one");
  write(other, "other");
  EXPECT_EQ(read(guest_, 5), "other");
  // What a reader typed was taken from it all the same.
  const std::string page(4096, 'u');
  for (std::size_t typed = 0; typed < 2 * Console::kMaxInput; typed += page.size()) {
    write(reader, page);
  }
  write(one, "!");
  EXPECT_EQ(read(guest_, 1), "!");
}

// As a user types before the worker has begun to read.
TEST_F(ConsoleTest, inputThatNobodyTakesYet_isBounded_andNothingOfItLost) {
  Stream client = attach();
  const std::size_t typed = fillInput(client);
  ASSERT_GE(typed, Console::kMaxInput);
  EXPECT_LT(typed, 16 * Console::kMaxInput) << "more than sockets keep";
  EXPECT_TRUE(read(guest_, typed) == std::string(typed, 'i'));
}

TEST_F(ConsoleTest, clientThatTypesNoMore_readsOn) {
  Stream client = attach();
  write(client, "last");
  client->shutdownWrite();
  EXPECT_EQ(read(guest_, 4), "last");
  write(guest_, "heard");
  EXPECT_EQ(read(client, 5), "heard");
}

TEST_F(ConsoleTest, tooManyClients_areRefused_andThoseThatAreThereStay) {
  std::vector<Stream> clients = attachAsManyAsThereMayBe();
  try {
    console_->attach(0, true);
    FAIL() << "was not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(error.message().find("16 clients"), std::string::npos) << error.message();
    EXPECT_FALSE(error.hint().empty());
  }
  write(guest_, "all");
  for (Stream& client : clients) {
    EXPECT_EQ(read(client, 3), "all");
  }
}

TEST_F(ConsoleTest, clientsThatLeft_makeRoomAtOnce_againAndAgain) {
  for (int round = 0; round < 4; ++round) {
    std::vector<Stream> clients = attachAsManyAsThereMayBe();
    write(guest_, "round");
    EXPECT_EQ(read(clients.back(), 5), "round");
  }
}

TEST_F(ConsoleTest, clientThatLeft_isLetGoOfThoughTheGuestIsSilent) {
  const auto before = descriptors();
  std::vector<Stream> clients = attachAsManyAsThereMayBe();
  EXPECT_GT(descriptors(), before);
  clients.clear();
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; }));
}

TEST_F(ConsoleTest, clientThatLeft_isLetGoOf_whenItTypedNoMoreBefore) {
  const auto before = descriptors();
  Stream client = attach();
  write(guest_, "said");
  client->shutdownWrite();
  EXPECT_EQ(read(client, 4), "said");
  client = nullptr;
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; }));
}

TEST_F(ConsoleTest, clientThatLeft_isLetGoOf_thoughOutputWaitedForIt) {
  const auto before = descriptors();
  Stream slow = attach();
  {
    Stream other = attach();
    sayTo(other, counted(kMuch));
  }
  slow = nullptr;
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; }));
}

// A guest that hangs takes no input, and those who look after it come and go.
TEST_F(ConsoleTest, clientsThatLeft_areLetGoOf_thoughInputWaitsForTheGuest) {
  const auto before = descriptors();
  std::vector<Stream> clients = attachAsManyAsThereMayBe();
  for (Stream& client : clients) {
    fillInput(client);
  }
  clients.clear();
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; })) << "they are kept";
  clients = attachAsManyAsThereMayBe();
  write(guest_, "still here");
  EXPECT_EQ(read(clients.back(), 10), "still here");
}

TEST_F(ConsoleTest, clientThatLeft_isLetGoOf_whenTheGuestHasClosedItsEnd) {
  const auto before = descriptors();
  std::vector<Stream> clients;
  clients.push_back(attach());
  fillInput(clients.front());
  clients.push_back(attach());
  guest_ = nullptr;
  EXPECT_EQ(send(clients.back(), "unheard"), 7);
  clients.clear();
  EXPECT_TRUE(becomes([&]() { return descriptors() == before - 1; }));  // that of the guest
}

TEST_F(ConsoleTest, whatAClientTypedBeforeItLeft_comesToTheGuest) {
  for (int round = 0; round < 3; ++round) {
    {
      Stream client = attach();
      write(client, "echo");
    }
    EXPECT_EQ(read(guest_, 4), "echo");
  }
}

TEST_F(ConsoleTest, end_comesBehindAllThatWasSaid) {
  Stream client = attach();
  const std::string said = counted(16 * 1024);
  write(guest_, said);  // the console has not read it yet
  auto finished = console_->finish(kPatient).eagerlyEvaluate(nullptr);
  EXPECT_TRUE(readToTheEnd(client) == said);
  finished.wait(io_.waitScope);
}

TEST_F(ConsoleTest, end_withoutClients_isThereAtOnce) {
  EXPECT_TRUE(console_->finish(kPatient).poll(io_.waitScope));
}

TEST_F(ConsoleTest, end_waitsForSlowClientsToItsLimit_andTheyAreLetGoOf) {
  const auto before = descriptors();
  Stream slow = attach();
  {
    Stream other = attach();
    sayTo(other, counted(kMuch * 2));
  }
  console_->finish(10 * kj::MILLISECONDS).wait(io_.waitScope);
  const std::string got = readToTheEnd(slow);
  EXPECT_LT(got.size(), kMuch * 2);
  EXPECT_TRUE(got == counted(kMuch * 2).substr(0, got.size()));
  slow = nullptr;
  EXPECT_LT(descriptors(), before);  // nor is the guest's socket kept
}

TEST_F(ConsoleTest, end_waitsForNobodyWhoLeft) {
  Stream slow = attach();
  {
    Stream other = attach();
    sayTo(other, counted(kMuch * 2));
  }
  auto finished = console_->finish(kPatient);
  EXPECT_FALSE(finished.poll(io_.waitScope));
  slow = nullptr;
  finished.wait(io_.waitScope);
}

TEST_F(ConsoleTest, whoComesAfterTheEnd_getsWhatTheRingHolds_andItsEnd) {
  say("all that was said");
  console_->finish(kPatient).wait(io_.waitScope);
  const auto before = descriptors();
  for (int round = 0; round < 3; ++round) {
    Stream late = attach(1000);
    EXPECT_EQ(readToTheEnd(late), "all that was said");
    Stream nothing = attach(0);
    EXPECT_EQ(readToTheEnd(nothing), "");
  }
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; }));
}

TEST_F(ConsoleTest, inputAfterTheEnd_goesNowhere_andKeepsNobody) {
  std::vector<Stream> clients = attachAsManyAsThereMayBe();
  fillInput(clients.front());  // of a guest that took nothing to its end
  clients.clear();
  console_->finish(kPatient).wait(io_.waitScope);
  const auto before = descriptors();
  Stream late = attach(1000);
  EXPECT_EQ(send(late, "late"), 4);
  EXPECT_EQ(readToTheEnd(late), "");
  late = nullptr;
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; }));
}

TEST_F(ConsoleTest, consoleThatGoes_closesItsClients) {
  Stream client = attach();
  console_.reset();
  EXPECT_EQ(readToTheEnd(client), "");
}

}  // namespace
}  // namespace vmmhost::vm
