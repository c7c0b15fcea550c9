#include "ipc/rpc/connection.h"

#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "ipc/rpc/answer.h"

namespace vmmhost::rpc {
namespace {

// Answers hello with what it was told; keeps the descriptor that attach brings; create never answers.
class TestWorker final : public schema::Worker::Server {
 public:
  using Received = std::map<std::uint32_t, Fd>;  // by the number that each was attached with
  explicit TestWorker(Received* received = nullptr) : received_(received) {}
  kj::Promise<void> hello(HelloContext context) override {
    if (context.getParams().getHost().getBuild() == "gone") {
      return fail(Error(ErrorCode::kSupervisorDied, "not true"));
    }
    return answer(context, [context]() mutable {
      const auto build = context.getParams().getHost().getBuild();
      if (build == "refuse") {
        throw Error(ErrorCode::kUnsupported, "no \x1f build", "a hint", true);
      }
      if (build == "long") {
        context.getResults().initWorker().setBuild(std::string(100'000, 'x'));
        return;
      }
      context.getResults().initWorker().setBuild(build);
    });
  }
  kj::Promise<void> attach(AttachContext context) override {
    const std::uint32_t number = context.getParams().getResource().getFile();
    return receiveDescriptor(context.getParams().getDescriptor()).then([this, number](Fd fd) {
      if (received_ != nullptr) {
        received_->emplace(number, std::move(fd));
      }
    });
  }
  kj::Promise<void> create(CreateContext) override { return kj::NEVER_DONE; }

 private:
  Received* received_;
};

class ConnectionTest : public testing::Test {
 protected:
  ~ConnectionTest() noexcept override {}

  void connect(const Limits& serverLimits, TestWorker::Received* received = nullptr) {
    SocketPair sockets = makeSocketPair();
    ::fcntl(sockets.remote.get(), F_SETFL, O_NONBLOCK);
    server_ = std::make_unique<Connection>(io_, std::move(sockets.remote), Side::kServer, serverLimits,
                                           kj::heap<TestWorker>(received));
    client_ = std::make_unique<Connection>(io_, std::move(sockets.local), Side::kClient, Limits());
  }
  auto hello(const char* build) {
    auto request = client_->bootstrap<schema::Worker>().helloRequest();
    request.initHost().setBuild(build);
    return request.send();
  }
  // What the other side said; "answered" if nothing was wrong.
  template <typename Promise>
  std::string failureOf(Promise promise) {
    try {
      promise.wait(io_.waitScope);
    } catch (const kj::Exception& exception) {
      return exception.getDescription().cStr();
    }
    return "answered";
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::unique_ptr<Connection> server_;
  std::unique_ptr<Connection> client_;
};

TEST_F(ConnectionTest, callIsAnswered) {
  connect({});
  auto response = hello("abc").wait(io_.waitScope);
  EXPECT_STREQ(response.getWorker().getBuild().cStr(), "abc");
  EXPECT_FALSE(response.hasError());
}

// What a peer may send says nothing about what it is told: an outcome with the last lines of a worker's log is longer
// than any request.
TEST_F(ConnectionTest, answerLongerThanAnyCall_arrives) {
  connect({.maxMessageWords = 1024});
  auto response = hello("long").wait(io_.waitScope);
  EXPECT_EQ(response.getWorker().getBuild().size(), 100'000u);
  EXPECT_NE(failureOf(hello(std::string(10'000, 'x').c_str())), "answered");
}

TEST_F(ConnectionTest, errorArrivesWhole) {
  connect({});
  auto response = hello("refuse").wait(io_.waitScope);
  try {
    throwIfError(response);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.message(), "no   build");
    EXPECT_EQ(error.hint(), "a hint");
    EXPECT_TRUE(error.retryable());
  }
}

// Results carry errors; an exception of a peer is none of ours, even if it is packed like one.
TEST_F(ConnectionTest, packedErrorOfAPeer_isNotUnpacked) {
  connect({});
  auto answered = hello("gone");
  try {
    answered.wait(io_.waitScope);
    FAIL() << "answered";
  } catch (const kj::Exception& exception) {
    EXPECT_EQ(fromKj(exception).code(), ErrorCode::kWorkerDied);  // for its type
  }
}

TEST_F(ConnectionTest, descriptorArrives_whenAccepted) {
  TestWorker::Received received;
  connect({.acceptDescriptors = true}, &received);
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const Fd readEnd(pipe[0]);
  auto request = client_->bootstrap<schema::Worker>().attachRequest();
  request.setDescriptor(makeDescriptor(Fd(pipe[1])));
  request.send().wait(io_.waitScope);
  ASSERT_EQ(received.size(), 1u);
  ASSERT_EQ(::write(received[0].get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(readEnd.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
}

class Descriptors : public ConnectionTest, public testing::WithParamInterface<bool> {
 protected:
  ~Descriptors() noexcept override {}
};

TEST_P(Descriptors, manyInOneTurn_eachFindTheirCall) {
  TestWorker::Received received;
  connect({.maxOpenQuestions = 200, .acceptDescriptors = true, .duplicatesDescriptors = GetParam()}, &received);
  auto worker = client_->bootstrap<schema::Worker>();
  kj::Vector<kj::Promise<void>> calls;
  constexpr std::uint32_t kDescriptors = 50;
  for (std::uint32_t i = 0; i < kDescriptors; ++i) {
    Fd file(::memfd_create("numbered", MFD_CLOEXEC));
    ASSERT_EQ(::pwrite(file.get(), &i, sizeof i, 0), static_cast<ssize_t>(sizeof i));
    auto request = worker.attachRequest();
    request.initResource().setFile(i);
    request.setDescriptor(makeDescriptor(std::move(file)));
    calls.add(request.send().ignoreResult());
    auto between = worker.helloRequest();
    between.initHost().setBuild("between");
    calls.add(between.send().ignoreResult());
  }
  kj::joinPromises(calls.releaseAsArray()).wait(io_.waitScope);
  ASSERT_EQ(received.size(), kDescriptors);
  for (const auto& [number, file] : received) {
    std::uint32_t written = ~number;
    EXPECT_EQ(::pread(file.get(), &written, sizeof written, 0), static_cast<ssize_t>(sizeof written));
    EXPECT_EQ(written, number);
  }
}

// As often as one likes: nothing of those before is left.
TEST_P(Descriptors, oneAfterTheOther_leaveNoneBehind) {
  TestWorker::Received received;
  connect({.acceptDescriptors = true, .duplicatesDescriptors = GetParam()}, &received);
  auto worker = client_->bootstrap<schema::Worker>();
  const auto receive = [&] {
    received.clear();
    auto request = worker.attachRequest();
    request.setDescriptor(makeDescriptor(Fd(::memfd_create("one", MFD_CLOEXEC))));
    request.send().wait(io_.waitScope);
    return received.at(0).get();
  };
  int highest = 0;
  for (int i = 0; i < 20; ++i) {
    highest = std::max(highest, receive());
  }
  for (int i = 0; i < 200; ++i) {
    EXPECT_LT(receive(), highest + 8);
  }
}

// How many descriptors the process may have, until it goes.
class FewDescriptors {
 public:
  FewDescriptors() {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit few = {std::min<rlim_t>(before_.rlim_cur, 256), before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit before_ = {};
};

// One number more is enough for what comes, but not for what is kept in its place.
TEST_P(Descriptors, oneThatThereIsNoRoomFor_isRefused_andTheConnectionLives) {
  TestWorker::Received received;
  connect({.acceptDescriptors = true, .duplicatesDescriptors = GetParam()}, &received);
  auto worker = client_->bootstrap<schema::Worker>();
  const auto attach = [&](std::uint32_t number) {
    auto request = worker.attachRequest();
    request.initResource().setFile(number);
    request.setDescriptor(makeDescriptor(Fd(::memfd_create("one", MFD_CLOEXEC))));
    return request;
  };
  attach(0).send().wait(io_.waitScope);
  EXPECT_EQ(failureOf(hello("abc")), "answered");  // what was lent for the call is closed by then
  const FewDescriptors few;
  for (const std::size_t left : {1u, 0u}) {
    auto refused = attach(1);
    std::vector<Fd> fillers;
    while (Fd filler{::eventfd(0, EFD_CLOEXEC)}) {
      fillers.push_back(std::move(filler));
    }
    ASSERT_EQ(errno, EMFILE);
    ASSERT_GT(fillers.size(), left);
    fillers.resize(fillers.size() - left);
    EXPECT_NE(failureOf(refused.send()), "answered") << left;
    EXPECT_EQ(failureOf(hello("abc")), "answered") << left;
  }
  EXPECT_EQ(received.size(), 1u);
  EXPECT_EQ(failureOf(attach(2).send()), "answered");
  EXPECT_EQ(received.size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Rpc, Descriptors, testing::Bool(),
                         [](const auto& info) { return info.param ? "duplicated" : "takenOver"; });

TEST_F(ConnectionTest, descriptorIsRefused_whenNotAccepted) {
  TestWorker::Received received;
  connect({}, &received);
  auto request = client_->bootstrap<schema::Worker>().attachRequest();
  request.setDescriptor(makeDescriptor(Fd(::open("/dev/null", O_RDWR | O_CLOEXEC))));
  EXPECT_NE(failureOf(request.send()).find("a capability that should carry a descriptor came without one"),
            std::string::npos);
  EXPECT_TRUE(received.empty());
}

TEST_F(ConnectionTest, callsBeyondTheLimit_cutThePeerOff) {
  connect({.maxOpenQuestions = 8});
  auto worker = client_->bootstrap<schema::Worker>();
  kj::Vector<kj::Promise<void>> calls;
  for (int i = 0; i < 20; ++i) {
    calls.add(worker.createRequest().send().ignoreResult());
  }
  server_->onDisconnect().wait(io_.waitScope);
  EXPECT_EQ(server_->violation(), "too many unfinished calls");
}

TEST_F(ConnectionTest, peerThatNeverReads_getsNoFurtherAnswersMade) {
  SocketPair sockets = makeSocketPair();
  ::fcntl(sockets.remote.get(), F_SETFL, O_NONBLOCK);
  const Fd taken(::fcntl(sockets.remote.get(), F_DUPFD_CLOEXEC, 0));
  server_ =
      std::make_unique<Connection>(io_, std::move(sockets.remote), Side::kServer, Limits(), kj::heap<TestWorker>());
  // Bootstrap requests with finishes, as raw bytes, and nobody to read the replies.
  constexpr std::size_t kBytes = 48;
  std::size_t accepted = 0;
  const Fd& raw = sockets.local;
  std::uint64_t frame[64];
  auto send = [&](std::uint32_t question) {
    std::memset(frame, 0, sizeof(frame));
    // One segment of 5 words: Message{bootstrap: Bootstrap{questionId}}.
    frame[0] = std::uint64_t{5} << 32;
    frame[1] = 0x0001'0001'0000'0000;  // root struct pointer: 1 data word, 1 pointer
    frame[2] = 8;                      // union tag: bootstrap
    frame[3] = 0x0001'0001'0000'0000;  // pointer to Bootstrap, right behind
    frame[4] = question;
    return ::send(raw.get(), frame, kBytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  };
  for (int round = 0; round < 2000; ++round) {
    if (send(static_cast<std::uint32_t>(round)) == kBytes) {
      ++accepted;
    }
    io_.provider->getTimer().afterDelay(0 * kj::NANOSECONDS).wait(io_.waitScope);
  }
  // It was cut off at the limit of open questions, and nothing behind that was read.
  EXPECT_EQ(server_->violation(), "too many unfinished calls");
  int unread = 0;
  ASSERT_EQ(::ioctl(taken.get(), FIONREAD, &unread), 0);
  EXPECT_EQ(accepted - static_cast<std::size_t>(unread) / kBytes, Limits().maxOpenQuestions + 1);
}

TEST_F(ConnectionTest, halfAMessageBeforeTheEnd_isAViolation) {
  SocketPair sockets = makeSocketPair();
  ::fcntl(sockets.remote.get(), F_SETFL, O_NONBLOCK);
  server_ =
      std::make_unique<Connection>(io_, std::move(sockets.remote), Side::kServer, Limits(), kj::heap<TestWorker>());
  const std::uint32_t header[2] = {0, 10};
  ASSERT_EQ(::send(sockets.local.get(), header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
  sockets.local.reset();
  server_->onDisconnect().wait(io_.waitScope);
  EXPECT_EQ(server_->violation(), "half a message before the end of the connection");
}

TEST_F(ConnectionTest, peerThatAsksForACapabilityWhereThereIsNone_isToldSo) {
  SocketPair sockets = makeSocketPair(RemoteEnd::kNonBlocking);
  server_ = std::make_unique<Connection>(io_, std::move(sockets.remote), Side::kServer, Limits());
  client_ = std::make_unique<Connection>(io_, std::move(sockets.local), Side::kClient, Limits());
  EXPECT_EQ(failureOf(hello("abc")), "remote exception: This vat does not expose any public/bootstrap interfaces.");
  EXPECT_TRUE(server_->violation().empty());
}

TEST_F(ConnectionTest, peerThatGoesWithoutReading_isSeenToGo) {
  SocketPair sockets = makeSocketPair(RemoteEnd::kNonBlocking);
  server_ =
      std::make_unique<Connection>(io_, std::move(sockets.remote), Side::kServer,
                                   Limits{.maxQueuedMessages = 4, .maxOpenQuestions = 100000}, kj::heap<TestWorker>());
  // Questions until their answers fill the socket and the queue, so that no more are read.
  capnp::MallocMessageBuilder builder;
  auto bootstrap = builder.initRoot<capnp::rpc::Message>().initBootstrap();
  int refusals = 0;
  for (std::uint32_t id = 0; refusals < 100; ++id) {
    bootstrap.setQuestionId(id);
    const auto frame = capnp::messageToFlatArray(builder);
    if (::send(sockets.local.get(), frame.begin(), frame.asBytes().size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      ++refusals;
    }
    io_.provider->getTimer().afterDelay(0 * kj::NANOSECONDS).wait(io_.waitScope);
  }
  sockets.local.reset();
  withDeadline<void>(io_.provider->getTimer(), std::chrono::milliseconds(5000), "seeing the end",
                     server_->onDisconnect())
      .wait(io_.waitScope);
}

// One call has more to be written than the queue takes, and the first write fails at once.
TEST_F(ConnectionTest, peerThatAsksAndGoes_isSeenToGo) {
  SocketPair sockets = makeSocketPair(RemoteEnd::kNonBlocking);
  const auto send = [&](auto fill) {
    capnp::MallocMessageBuilder builder;
    fill(builder.initRoot<capnp::rpc::Message>());
    const auto frame = capnp::messageToFlatArray(builder);
    const auto bytes = frame.asBytes();
    ASSERT_EQ(::send(sockets.local.get(), bytes.begin(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  };
  send([](auto message) { message.initBootstrap().setQuestionId(0); });
  for (std::uint32_t id = 1; id < 20; ++id) {
    send([id](auto message) {
      auto call = message.initCall();
      call.setQuestionId(id);
      call.setInterfaceId(capnp::typeId<schema::Worker>());
      call.initTarget().setImportedCap(0);
      // Each is released as soon as the call is done.
      auto promises = call.initParams().initCapTable(8);
      for (unsigned i = 0; i < promises.size(); ++i) {
        promises[i].setSenderPromise(id * 8 + i);
      }
    });
    send([id](auto message) { message.initFinish().setQuestionId(id); });
  }
  sockets.local.reset();
  server_ = std::make_unique<Connection>(io_, std::move(sockets.remote), Side::kServer, Limits{.maxQueuedMessages = 4},
                                         kj::heap<TestWorker>());
  withDeadline<void>(io_.provider->getTimer(), std::chrono::milliseconds(5000), "seeing the end",
                     server_->onDisconnect())
      .wait(io_.waitScope);
}

TEST_F(ConnectionTest, deadlineIsKept) {
  connect({});
  auto call = client_->bootstrap<schema::Worker>().createRequest().send().ignoreResult();
  try {
    withDeadline<void>(io_.provider->getTimer(), std::chrono::milliseconds(20), "creating", kj::mv(call))
        .wait(io_.waitScope);
    FAIL() << "no deadline";
  } catch (const kj::Exception& exception) {
    const Error error = fromKj(exception);
    EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
    EXPECT_NE(error.message().find("creating"), std::string::npos);
  }
}

TEST_F(ConnectionTest, deathOfThePeer_endsCalls) {
  connect({});
  auto call = client_->bootstrap<schema::Worker>().createRequest().send().ignoreResult();
  server_ = nullptr;
  try {
    call.wait(io_.waitScope);
    FAIL() << "answered";
  } catch (const kj::Exception& exception) {
    EXPECT_EQ(fromKj(exception).code(), ErrorCode::kWorkerDied);
  }
}

}  // namespace
}  // namespace vmmhost::rpc
