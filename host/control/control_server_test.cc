// The control socket of a real VM, and of none: who is served, who has to go, and what clients are told.
#include "host/control/control_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/runtime/sockets.h"
#include "host/vm/test_vm.h"
#include "ipc/rpc/connection.h"
#include "vmmhost/fd.h"

namespace vmmhost::control {
namespace {

using namespace vm::testing;

constexpr std::size_t kMostOfOneClient = 16;  // calls that are open

// A supervisor's part, with what it was told.
class TestTarget final : public Target {
 public:
  TestTarget() {
    auto pair = kj::newPromiseAndFulfiller<void>();
    started = kj::mv(pair.fulfiller);
    started_ = pair.promise.fork();
  }
  ~TestTarget() noexcept override {}
  vm::Vm* vm() override { return shown; }
  kj::Promise<void> onConsole() override { return shown == nullptr ? kj::NEVER_DONE : shown->consoles().onReady(); }
  kj::Promise<void> onStarted() override { return started_.addBranch(); }
  kj::Promise<void> onFinished() override { return shown == nullptr ? kj::NEVER_DONE : shown->onEnded(); }
  const vm::Outcome& outcome() override { return shown->outcome(); }
  kj::Promise<std::uint64_t> measureMemory(std::chrono::milliseconds) override { return std::uint64_t{0}; }
  void describe(schema::VmInfo::Builder out, std::uint64_t) override {
    shown == nullptr ? out.setName("none yet") : shown->describe(out);
  }
  kj::Promise<void> stop(EndKind kind, std::string reason, int signal) override {
    stops.push_back({kind, reason, signal});
    return shown == nullptr ? kj::NEVER_DONE : shown->stop(kind, reason, signal);
  }
  void starterDetached() override { ++detached; }
  void starterGone() override { ++gone; }

  struct Stop {
    EndKind kind;
    std::string reason;
    int signal;
  };
  vm::Vm* shown = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> started;
  std::vector<Stop> stops;
  unsigned detached = 0;
  unsigned gone = 0;

 private:
  kj::ForkedPromise<void> started_ = nullptr;
};

rpc::Limits limits() {
  rpc::Limits all;
  all.acceptDescriptors = true;
  return all;
}

struct Peer {
  Peer(kj::AsyncIoContext& io, Fd socket)
      : connection(std::make_unique<rpc::Connection>(io, std::move(socket), rpc::Side::kClient, limits())),
        control(connection->bootstrap<schema::Control>()) {}
  std::unique_ptr<rpc::Connection> connection;
  schema::Control::Client control;
};

class ControlServerTest : public VmTest {
 protected:
  ControlServerTest() : server_(std::make_unique<ControlServer>(io_, target_, log_)) {
    place_ = Fd(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    server_->listen(runtime::listenIn(place_.get(), "control", 64));
  }
  ~ControlServerTest() noexcept override {
    server_.reset();
    for (const auto& [pid, end] : others_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

  vm::Vm& show(const std::string& guest, const std::string& faults = {}) {
    target_.shown = &run(guest, faults);
    return *target_.shown;
  }
  Peer connect() { return {io_, runtime::connectIn(place_.get(), "control")}; }
  Peer connectAsStarter() {
    rpc::SocketPair pair = rpc::makeSocketPair();
    server_->serveStarter(std::move(pair.remote));
    return {io_, std::move(pair.local)};
  }
  void greet(Peer& peer) {
    auto request = peer.control.helloRequest();
    request.setClientMajor(schema::CONTROL_MAJOR);
    EXPECT_FALSE(request.send().wait(io_.waitScope).hasError());
  }
  std::vector<Peer> connectAndGreet(std::size_t count) {
    std::vector<Peer> peers;
    while (peers.size() < count) {
      peers.push_back(connect());
      greet(peers.back());
    }
    return peers;
  }
  // Of another process, which is there until the end of the test.
  std::vector<Peer> connectElsewhere(std::size_t count) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    Fd ours(ends[0]);
    const Fd theirs(ends[1]);
    const pid_t pid = ::fork();
    if (pid == 0) {
      // Nothing of the server and its other clients is to stay open here.
      constexpr int kTheirs = 3;
      constexpr int kPlace = 4;
      const int place = ::fcntl(place_.get(), F_DUPFD, kPlace + 1);
      ::dup2(theirs.get(), kTheirs);
      ::dup2(place, kPlace);
      ::close_range(kPlace + 1, ~0U, 0);
      for (std::size_t made = 0; made < count; ++made) {
        giveAway(kTheirs, runtime::connectIn(kPlace, "control"));
      }
      while (true) {
        ::pause();
      }
    }
    std::vector<Peer> peers;
    while (peers.size() < count) {
      peers.emplace_back(io_, receive(ours.get()));
    }
    others_.emplace_back(pid, std::move(ours));
    return peers;
  }
  static void giveAway(int to, Fd descriptor) {
    char byte = 'f';
    iovec data = {&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    *header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    const int number = descriptor.get();
    std::memcpy(CMSG_DATA(header), &number, sizeof number);
    if (::sendmsg(to, &message, 0) != 1) {
      ::_exit(1);
    }
  }
  static Fd receive(int from) {
    char byte;
    iovec data = {&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    int number = -1;
    if (::recvmsg(from, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message) != nullptr) {
      std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof number);
    }
    return Fd(number);
  }

  bool isServed(Peer& peer) {
    return peer.control.infoRequest()
        .send()
        .then([](auto&&) { return true; }, [](kj::Exception&&) { return false; })
        .wait(io_.waitScope);
  }
  void expectToBeCutOff(Peer& peer) { peer.connection->onDisconnect().wait(io_.waitScope); }
  template <typename Request>
  Error answerTo(Request request) {
    const auto response = request.send().wait(io_.waitScope);
    return response.hasError() ? rpc::readError(response.getError()) : Error(ErrorCode::kUnknown, "none");
  }

  TestTarget target_;
  Fd place_;
  std::vector<std::pair<pid_t, Fd>> others_;
  std::unique_ptr<ControlServer> server_;
};

class Sink final : public schema::StateSink::Server {
 public:
  Sink(std::vector<VmState>& seen, bool answers) : seen_(seen), answers_(answers) {}
  kj::Promise<void> changed(ChangedContext context) override {
    seen_.push_back(context.getParams().getState());
    return answers_ ? kj::Promise<void>(kj::READY_NOW) : kj::NEVER_DONE;
  }

 private:
  std::vector<VmState>& seen_;
  bool answers_;
};

TEST_F(ControlServerTest, clients_areServedSideBySide) {
  show("loop");
  std::vector<Peer> peers = connectAndGreet(3);
  auto waiting = peers[0].control.waitRequest().send();
  EXPECT_EQ(answerTo(peers[1].control.pauseRequest()).message(), "none");
  auto info = peers[2].control.infoRequest().send().wait(io_.waitScope);
  EXPECT_EQ(info.getInfo().getState(), VmState::PAUSED);
  EXPECT_FALSE(waiting.poll(io_.waitScope));
  auto stop = peers[2].control.stopRequest();
  stop.setReason("seen enough\x1b[2J");
  const auto stopped = stop.send().wait(io_.waitScope);
  EXPECT_EQ(stopped.getOutcome().getExitCode(), 143);
  EXPECT_STREQ(stopped.getOutcome().getDetail().cStr(), "seen enough\\x1b[2J");
  EXPECT_STREQ(waiting.wait(io_.waitScope).getOutcome().getDetail().cStr(), "seen enough\\x1b[2J");
}

TEST_F(ControlServerTest, clientOfAnotherMajorVersion_isToldBoth) {
  Peer peer = connect();
  auto request = peer.control.helloRequest();
  request.setClientMajor(schema::CONTROL_MAJOR + 1);
  const auto answer = request.send().wait(io_.waitScope);
  EXPECT_EQ(answer.getMajor(), schema::CONTROL_MAJOR);
  ASSERT_TRUE(answer.hasError());
  const Error error = rpc::readError(answer.getError());
  EXPECT_EQ(error.code(), ErrorCode::kProtocol);
  EXPECT_FALSE(error.hint().empty());
}

TEST_F(ControlServerTest, whoSaysNoHello_goes_andTheOthersStay) {
  Peer silent = connect();
  Peer talks = connect();
  EXPECT_TRUE(isServed(talks));
  Peer greeted = connect();
  greet(greeted);
  Peer starter = connectAsStarter();
  expectToBeCutOff(silent);
  expectToBeCutOff(talks);  // whatever else it asks for
  EXPECT_TRUE(isServed(greeted));
  EXPECT_TRUE(isServed(starter));
  EXPECT_EQ(target_.gone, 0u);
}

TEST_F(ControlServerTest, newcomer_takesThePlaceOfTheProcessThatHasMost_itsOldest) {
  Peer starter = connectAsStarter();
  std::vector<Peer> most = connectAndGreet(ControlServer::kMaxClients - 3);
  std::vector<Peer> few = connectElsewhere(2);
  greet(few[0]);
  greet(few[1]);
  std::vector<Peer> newcomer = connectElsewhere(1);
  greet(newcomer[0]);
  expectToBeCutOff(most.front());
  most.erase(most.begin());
  for (std::vector<Peer>* peers : {&most, &few, &newcomer}) {
    for (Peer& peer : *peers) {
      EXPECT_TRUE(isServed(peer));
    }
  }
  EXPECT_TRUE(isServed(starter));
}

TEST_F(ControlServerTest, newcomer_takesThePlaceOfOneThatSaidNothing_first) {
  std::vector<Peer> most = connectAndGreet(5);
  Peer silent = connect();
  std::vector<Peer> more = connectAndGreet(ControlServer::kMaxClients - 6);
  std::vector<Peer> newcomer = connectElsewhere(1);
  greet(newcomer[0]);
  expectToBeCutOff(silent);
  EXPECT_TRUE(isServed(most.front()));
}

TEST_F(ControlServerTest, processThatHasMost_getsNoMore) {
  std::vector<Peer> peers = connectAndGreet(ControlServer::kMaxClients);
  Peer further = connect();
  expectToBeCutOff(further);
  for (Peer& peer : peers) {
    EXPECT_TRUE(isServed(peer));
  }
  peers.pop_back();
  bool isIn = false;
  EXPECT_TRUE(becomes([&]() {
    if (!isIn) {
      Peer again = connect();
      isIn = isServed(again);
    }
    return isIn;
  }));
}

TEST_F(ControlServerTest, processesWithOneEach_keepTheirs) {
  std::vector<Peer> peers;
  while (peers.size() < ControlServer::kMaxClients) {
    std::vector<Peer> one = connectElsewhere(1);
    greet(one[0]);
    peers.push_back(std::move(one[0]));
  }
  Peer further = connect();
  expectToBeCutOff(further);
  EXPECT_TRUE(isServed(peers.front()));
}

TEST_F(ControlServerTest, clientsThatWent_leaveTheirPlaces) {
  for (int round = 0; round < 3; ++round) {
    std::vector<Peer> peers = connectAndGreet(ControlServer::kMaxClients);
    EXPECT_TRUE(isServed(peers.back()));
    const auto before = descriptors().size();
    peers.clear();
    EXPECT_TRUE(becomes([&]() { return descriptors().size() <= before - 2 * ControlServer::kMaxClients; }));
  }
}

TEST_F(ControlServerTest, floodOfCalls_endsTheClientAndNobodyElse) {
  show("loop");
  Peer other = connect();
  greet(other);
  Peer flood = connect();
  greet(flood);
  std::vector<kj::Promise<void>> calls;
  for (std::size_t call = 0; call < 2 * kMostOfOneClient; ++call) {
    calls.push_back(flood.control.waitRequest().send().ignoreResult());
  }
  expectToBeCutOff(flood);
  EXPECT_NE(log().find("control: a client was cut off: it sent "), std::string::npos) << log();
  EXPECT_TRUE(isServed(other));
}

TEST_F(ControlServerTest, messageThatIsTooLong_endsTheClientAndNobodyElse) {
  Peer other = connect();
  greet(other);
  Peer talker = connect();
  auto request = talker.control.helloRequest();
  request.setBuild(std::string(100'000, 'b'));
  auto answer = request.send();
  expectToBeCutOff(talker);
  EXPECT_TRUE(isServed(other));
}

TEST_F(ControlServerTest, bytesThatAreNoMessage_endTheClientAndNobodyElse) {
  Peer other = connect();
  greet(other);
  const Fd raw = runtime::connectIn(place_.get(), "control");
  const std::string garbage(64, '\xff');
  ASSERT_EQ(::send(raw.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL), 64);
  char byte;
  EXPECT_TRUE(becomes([&]() { return ::recv(raw.get(), &byte, 1, MSG_DONTWAIT) == 0; }));
  EXPECT_TRUE(isServed(other));
}

TEST_F(ControlServerTest, watchers_areToldOfEachChangeInOrder) {
  vm::Vm& vm = show("loop");
  std::vector<VmState> seen;
  Peer watcher = connect();
  greet(watcher);
  auto request = watcher.control.watchRequest();
  request.setSink(kj::heap<Sink>(seen, true));
  EXPECT_EQ(answerTo(kj::mv(request)).message(), "none");
  std::vector<VmState> expected;
  for (int turn = 0; turn < 100; ++turn) {
    vm.abilities().pause().wait(io_.waitScope);
    vm.abilities().resume().wait(io_.waitScope);
    expected.insert(expected.end(), {VmState::PAUSED, VmState::RUNNING});
  }
  EXPECT_TRUE(becomes([&]() { return seen.size() >= expected.size(); }));
  EXPECT_EQ(seen, expected);
  EXPECT_TRUE(isServed(watcher));
}

TEST_F(ControlServerTest, watcherThatDoesNotAnswer_isCutOff_andTheVmRunsOn) {
  vm::Vm& vm = show("loop");
  std::vector<VmState> seen;
  Peer watcher = connect();
  greet(watcher);
  auto request = watcher.control.watchRequest();
  request.setSink(kj::heap<Sink>(seen, false));
  EXPECT_EQ(answerTo(kj::mv(request)).message(), "none");
  for (int turn = 0; turn < 40; ++turn) {
    vm.abilities().pause().wait(io_.waitScope);
    vm.abilities().resume().wait(io_.waitScope);
  }
  expectToBeCutOff(watcher);
  EXPECT_NE(log().find("a client was cut off: it watches and does not answer"), std::string::npos) << log();
  EXPECT_EQ(vm.life().state(), VmState::RUNNING);
}

TEST_F(ControlServerTest, oneClient_watchesOnlySoOften_andAttachesOnlySoOften) {
  show("loop");
  Peer peer = connect();
  greet(peer);
  std::vector<VmState> seen;
  const auto watch = [&]() {
    auto request = peer.control.watchRequest();
    request.setSink(kj::heap<Sink>(seen, true));
    return answerTo(kj::mv(request)).code();
  };
  for (int times = 0; times < 8; ++times) {
    EXPECT_EQ(watch(), ErrorCode::kUnknown);
  }
  EXPECT_EQ(watch(), ErrorCode::kResourceExhausted);
  for (int times = 0; times < 4; ++times) {
    EXPECT_EQ(answerTo(peer.control.consoleRequest()).message(), "none");
  }
  EXPECT_EQ(answerTo(peer.control.consoleRequest()).code(), ErrorCode::kResourceExhausted);
}

TEST_F(ControlServerTest, console_isAStreamOfTheOneThatIsAskedFor) {
  show("serial_echo");
  Peer peer = connect();
  greet(peer);
  auto request = peer.control.consoleRequest();
  request.setReplayBytes(1000);
  request.setInput(true);
  Fd socket = rpc::receiveDescriptor(request.send().wait(io_.waitScope).getStream()).wait(io_.waitScope);
  Stream stream = io_.lowLevelProvider->wrapSocketFd(kj::AutoCloseFd(socket.release()));
  expectToRead(stream, "echo ready\n");
  write(stream, "typed");
  expectToRead(stream, "typed");
  request = peer.control.consoleRequest();
  request.setPort(1);
  EXPECT_EQ(answerTo(kj::mv(request)).code(), ErrorCode::kNotFound);
}

TEST_F(ControlServerTest, vmThatIsNotThereYet_isToBeAskedAgain) {
  Peer peer = connect();
  greet(peer);
  const Error error = answerTo(peer.control.pauseRequest());
  EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
  EXPECT_TRUE(error.retryable());
  EXPECT_STREQ(peer.control.infoRequest().send().wait(io_.waitScope).getInfo().getName().cStr(), "none yet");
  auto console = peer.control.consoleRequest().send();
  EXPECT_FALSE(console.poll(io_.waitScope));
}

TEST_F(ControlServerTest, whyAVmDidNotStart_arrivesWhole) {
  Peer peer = connect();
  greet(peer);
  auto started = peer.control.startedRequest().send();
  EXPECT_FALSE(started.poll(io_.waitScope));
  target_.started->reject(rpc::toKj(
      Error(ErrorCode::kUnavailable, "disks[1].format: of no kind", "make it raw", true).withField("disks[1].format")));
  const auto answer = started.wait(io_.waitScope);
  ASSERT_TRUE(answer.hasError());
  const Error error = rpc::readError(answer.getError());
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_EQ(error.message(), "disks[1].format: of no kind");
  EXPECT_EQ(error.hint(), "make it raw");
  EXPECT_TRUE(error.retryable());
  EXPECT_EQ(error.field(), "disks[1].format");
}

TEST_F(ControlServerTest, oldMethods_goTheWayOfTheObjects) {
  vm::Vm& vm = show("loop", "fault=error:reset");
  Peer peer = connect();
  greet(peer);
  const auto answer = peer.control.abilitiesRequest().send().wait(io_.waitScope);
  auto abilities = answer.getAbilities();
  ASSERT_TRUE(abilities.hasPausable() && abilities.hasResettable() && abilities.hasPowerButton());
  EXPECT_EQ(answerTo(peer.control.pauseRequest()).message(), "none");
  EXPECT_EQ(answerTo(abilities.getPausable().resumeRequest()).message(), "none");
  EXPECT_EQ(vm.life().state(), VmState::RUNNING);
  const auto expectSame = [&](const Error& old, const Error& error, const std::string& message) {
    EXPECT_EQ(error.message(), message);
    EXPECT_EQ(old.code(), error.code());
    EXPECT_EQ(old.message(), error.message());
    EXPECT_EQ(old.hint(), error.hint());
    EXPECT_EQ(old.retryable(), error.retryable());
    EXPECT_EQ(old.field(), error.field());
  };
  expectSame(answerTo(peer.control.resetRequest()), answerTo(abilities.getResettable().resetRequest()),
             "the fake backend fails at reset");
  EXPECT_EQ(answerTo(peer.control.balloonRequest()).code(), ErrorCode::kUnsupported);
  EXPECT_EQ(answerTo(peer.control.setBalloonRequest()).code(), ErrorCode::kUnsupported);
  EXPECT_EQ(answerTo(peer.control.resizeConsoleRequest()).code(), ErrorCode::kUnsupported);
  vm.stop(EndKind::STOPPED, "").wait(io_.waitScope);
  expectSame(answerTo(peer.control.pauseRequest()), answerTo(abilities.getPausable().pauseRequest()),
             "cannot pause a VM that is ended");
  expectSame(answerTo(peer.control.resetRequest()), answerTo(abilities.getResettable().resetRequest()),
             "cannot reset a VM that is ended");
  expectSame(answerTo(peer.control.shutdownRequest()), answerTo(abilities.getPowerButton().pressRequest()),
             "cannot shutdown a VM that is ended");
}

TEST_F(ControlServerTest, stop_takesWhatAClientMaySay) {
  Peer peer = connect();
  greet(peer);
  const auto stop = [&](EndKind kind, const char* reason, int signal) {
    auto request = peer.control.stopRequest();
    request.setKind(kind);
    request.setReason(reason);
    request.setSignal(signal);
    auto answer = request.send();
    answer.poll(io_.waitScope);
    return answer;
  };
  stop(EndKind::WORKER_DIED, "a lie", 0);
  stop(EndKind::SIGNALLED, "SIGINT", 0);  // as clients before 1.2 say it
  stop(EndKind::SIGNALLED, "SIGINT", SIGHUP);
  stop(EndKind::CLIENT_GONE, std::string(5000, 'r').c_str(), 0);
  ASSERT_EQ(target_.stops.size(), 4u);
  EXPECT_EQ(target_.stops[0].kind, EndKind::STOPPED);
  EXPECT_EQ(target_.stops[1].kind, EndKind::SIGNALLED);
  EXPECT_EQ(target_.stops[1].signal, SIGINT);
  EXPECT_EQ(target_.stops[2].signal, SIGHUP);
  EXPECT_EQ(target_.stops[3].kind, EndKind::CLIENT_GONE);
  EXPECT_LE(target_.stops[3].reason.size(), 256u);
  for (const int signal : {-1, NSIG, 1 << 30}) {
    auto answer = stop(EndKind::SIGNALLED, "", signal);
    EXPECT_EQ(rpc::readError(answer.wait(io_.waitScope).getError()).code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(target_.stops.size(), 4u);
}

TEST_F(ControlServerTest, clientThatVanishesInTheMidstOfItsCalls_harmsNothing) {
  vm::Vm& vm = show("loop", "fault=silent:pause");
  Peer other = connect();
  greet(other);
  const auto before = descriptors();
  {
    Peer peer = connect();
    greet(peer);
    auto wait = peer.control.waitRequest().send();
    auto started = peer.control.startedRequest().send();
    auto pause = peer.control.pauseRequest().send();
    auto console = peer.control.consoleRequest().send();
    EXPECT_FALSE(pause.poll(io_.waitScope));
  }
  EXPECT_TRUE(becomes([&]() { return descriptors() == before; }));
  EXPECT_TRUE(isServed(other));
  {
    Peer peer = connect();
    greet(peer);
    auto stop = peer.control.stopRequest().send();
    EXPECT_TRUE(becomes([&]() { return vm.life().state() != VmState::RUNNING; }));
  }
  vm.onEnded().wait(io_.waitScope);
  EXPECT_EQ(vm.outcome().kind, EndKind::STOPPED);
  EXPECT_TRUE(isServed(other));
}

TEST_F(ControlServerTest, lifeline_isToldOfOnce) {
  Peer starter = connectAsStarter();
  greet(starter);
  Peer other = connect();
  greet(other);
  EXPECT_EQ(answerTo(other.control.detachRequest()).code(), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(target_.detached, 0u);
  EXPECT_EQ(answerTo(starter.control.detachRequest()).message(), "none");
  EXPECT_EQ(target_.detached, 1u);
  EXPECT_EQ(target_.gone, 0u);
  starter.control = nullptr;
  starter.connection.reset();
  EXPECT_TRUE(becomes([&]() { return target_.gone > 0; }));
  EXPECT_TRUE(isServed(other));
  EXPECT_EQ(target_.gone, 1u);
}

TEST_F(ControlServerTest, serverThatGoes_endsItsClientsCalls) {
  show("loop");
  Peer peer = connect();
  greet(peer);
  auto waiting = peer.control.waitRequest().send();
  EXPECT_FALSE(waiting.poll(io_.waitScope));
  server_.reset();
  EXPECT_THROW(waiting.wait(io_.waitScope), kj::Exception);
}

}  // namespace
}  // namespace vmmhost::control
