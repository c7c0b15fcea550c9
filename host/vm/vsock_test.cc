#include "host/vm/vsock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "host/runtime/sockets.h"
#include "host/vm/vsock_line.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::vm {
namespace {

namespace fs = std::filesystem;

TEST(VsockLine, portIsRead_inTheFormsThatOthersTake) {
  for (const auto& [line, port] : std::vector<std::pair<std::string, std::uint32_t>>{
           {"CONNECT 52\n", 52}, {"connect 0\n", 0}, {"Connect \t4294967295\r\n", 4294967295}, {"CONNECT 7 \n", 7}}) {
    const ConnectLine parsed = parseConnectLine(line + "more\n");
    EXPECT_EQ(parsed.state, ConnectLine::State::kPort) << line;
    EXPECT_EQ(parsed.port, port) << line;
    EXPECT_EQ(parsed.bytes, line.size()) << line;
    for (std::size_t size = 0; size < line.size(); ++size) {
      EXPECT_EQ(parseConnectLine(line.substr(0, size)).state, ConnectLine::State::kUnfinished) << line << size;
    }
  }
}

TEST(VsockLine, whatIsNoSuchLine_isWrong) {
  for (const std::string line :
       {"\n", "CONNECT\n", "CONNECT \n", "CONNECT52\n", "CONNECT -1\n", "CONNECT 4294967296\n", "CONNECT 5 2\n",
        "CONNECT 0x10\n", "GET / HTTP/1.1\r\n", " CONNECT 1\n", "CONNECT                           1\n"}) {
    EXPECT_EQ(parseConnectLine(line).state, ConnectLine::State::kWrong) << line;
  }
  EXPECT_EQ(parseConnectLine(std::string(kMaxConnectLine, 'C')).state, ConnectLine::State::kWrong);
  EXPECT_EQ(parseConnectLine(std::string("CONNECT 1\0\n", 11)).state, ConnectLine::State::kWrong);
}

// The worker's side: keeps what it is given, and answers when it is told to.
struct Taken {
  std::uint32_t port = 0;
  Fd socket;
};
class TestDevice final : public schema::VsockDevice::Server {
 public:
  kj::Promise<void> connect(ConnectContext context) override {
    ++calls;
    if (isStuck) {
      held.push_back(context.getParams().getSocket());
      auto pair = kj::newPromiseAndFulfiller<void>();
      answers.add(kj::mv(pair.fulfiller));
      return kj::mv(pair.promise);
    }
    return rpc::receiveDescriptor(context.getParams().getSocket()).then([this, context](Fd socket) mutable {
      taken.push_back({context.getParams().getPort(), std::move(socket)});
    });
  }
  std::vector<Taken> taken;
  bool isStuck = false;
  unsigned calls = 0;
  std::vector<schema::Descriptor::Client> held;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> answers;
};

class VsockTest : public ::testing::Test {
 protected:
  VsockTest() {
    std::string pattern = ::testing::TempDir() + "vmmhost-vsock-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    folder_ = Fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    logPath_ = ::mkdtemp((pattern = ::testing::TempDir() + "vmmhost-vsock-log-XXXXXX").data());
    const Fd logFolder(::open(logPath_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    log_.setFile(std::make_unique<RotatingFile>(logFolder.get(), "log", 1 << 20));
    make(Vsock::kClientLimit);
    auto device = kj::heap<TestDevice>();
    device_ = device.get();
    client_ = kj::mv(device);
  }
  ~VsockTest() noexcept override {
    vsock_.reset();
    fs::remove_all(path_);
    fs::remove_all(logPath_);
  }

  void make(kj::Duration limit) {
    vsock_.reset();
    vsock_ = std::make_unique<Vsock>(io_, folder_.duplicate(), path_ + "/vsock", log_, limit);
  }
  void open() { vsock_->connectTo(client_); }
  Fd connect(const std::string& line) {
    Fd socket = runtime::connectIn(folder_.get(), "vsock");
    EXPECT_EQ(::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL), static_cast<ssize_t>(line.size()));
    return socket;
  }
  // Lets the loop run until this holds.
  template <typename Condition>
  bool becomes(Condition condition) {
    auto& timer = io_.provider->getTimer();
    const auto end = timer.now() + 10 * kj::SECONDS;
    while (!condition() && timer.now() < end) {
      timer.afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
    return condition();
  }
  // As far as there is something to do.
  void letRun() {
    for (int turn = 0; turn < 10; ++turn) {
      io_.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io_.waitScope);
    }
  }
  bool isClosed(const Fd& socket) {
    return becomes([&] {
      char byte;
      return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 0;
    });
  }
  static bool isOpen(const Fd& socket) {
    char byte;
    return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }
  Error errorOf(schema::VsockHost::Client& host, std::uint32_t port) {
    auto request = host.connectRequest();
    request.setPort(port);
    auto response = request.send().wait(io_.waitScope);
    return response.hasError() ? rpc::readError(response.getError()) : Error(ErrorCode::kUnknown, "none");
  }

  std::string log() const {
    std::ifstream file(logPath_ + "/log");
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::string logPath_;  // beside what is looked at
  Log log_{nullptr, false};
  std::string path_;
  Fd folder_;
  std::unique_ptr<Vsock> vsock_;
  TestDevice* device_ = nullptr;
  schema::VsockDevice::Client client_ = nullptr;
};

TEST_F(VsockTest, client_isHandedOver_withEveryByteBehindItsLine) {
  open();
  const Fd client = connect("CONNECT 5000\nand more\nof it");
  ASSERT_TRUE(becomes([&] { return device_->taken.size() == 1; }));
  EXPECT_EQ(device_->taken[0].port, 5000u);
  const int socket = device_->taken[0].socket.get();
  EXPECT_NE(::fcntl(socket, F_GETFL) & O_NONBLOCK, 0);
  char bytes[64] = {};
  EXPECT_EQ(::recv(socket, bytes, sizeof bytes, 0), 14);
  EXPECT_STREQ(bytes, "and more\nof it");
  // Nobody else holds it.
  device_->taken.clear();
  EXPECT_TRUE(isClosed(client));
}

TEST_F(VsockTest, clientThatSendsAndLeavesAtOnce_isHandedOver_withEveryByte) {
  open();
  for (const std::size_t bytes : {std::size_t{6}, std::size_t{100'000}}) {
    const std::string text(bytes, 'x');
    connect("CONNECT 5000\n" + text.substr(0, bytes / 2)).reset();
    {
      const Fd inPieces = connect("CONNECT 5001\n");
      EXPECT_EQ(::send(inPieces.get(), text.data(), bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
    }
    ASSERT_TRUE(becomes([&] { return device_->taken.size() == 2; }));
    for (const Taken& taken : device_->taken) {
      const std::size_t expected = taken.port == 5000 ? bytes / 2 : bytes;
      std::string got(bytes + 1, '\0');
      std::size_t have = 0;
      ssize_t count = 1;
      while (count > 0) {
        count = ::recv(taken.socket.get(), got.data() + have, got.size() - have, MSG_DONTWAIT);
        have += count > 0 ? static_cast<std::size_t>(count) : 0;
      }
      EXPECT_EQ(count, 0) << "an end of file comes behind it";
      EXPECT_EQ(have, expected);
    }
    device_->taken.clear();
  }
}

TEST_F(VsockTest, line_mayComeInPieces) {
  open();
  const Fd client = connect("CONN");
  letRun();
  EXPECT_TRUE(isOpen(client));
  ::send(client.get(), "ECT 1", 5, 0);
  ::send(client.get(), "2\nx", 3, 0);
  ASSERT_TRUE(becomes([&] { return device_->taken.size() == 1; }));
  EXPECT_EQ(device_->taken[0].port, 12u);
}

TEST_F(VsockTest, otherLines_areTheEndOfTheClient) {
  open();
  EXPECT_TRUE(isClosed(connect("HELLO\n")));
  EXPECT_TRUE(isClosed(connect(std::string(100, 'x'))));
  EXPECT_EQ(device_->calls, 0u);
}

TEST_F(VsockTest, nobodyIsServed_beforeThereIsAGuest) {
  const Fd client = connect("CONNECT 1\n");
  letRun();
  EXPECT_TRUE(isOpen(client));
  EXPECT_EQ(device_->calls, 0u);
  open();
  EXPECT_TRUE(becomes([&] { return device_->taken.size() == 1; }));
}

TEST_F(VsockTest, clientThatSaysNothing_isLetGo) {
  make(20 * kj::MILLISECONDS);
  open();
  EXPECT_TRUE(isClosed(connect("")));
  EXPECT_TRUE(isClosed(connect("CONNECT 1")));
}

TEST_F(VsockTest, clientsThatSayNothing_crowdNobodyOut) {
  open();
  std::vector<Fd> silent;
  for (std::size_t i = 0; i < Vsock::kMaxClients + 10; ++i) {
    silent.push_back(connect(""));
  }
  const Fd client = connect("CONNECT 1\n");
  EXPECT_TRUE(becomes([&] { return device_->taken.size() == 1; }));
  EXPECT_TRUE(isClosed(silent.front()));
  EXPECT_TRUE(isOpen(silent.back()));
}

TEST_F(VsockTest, workerThatTakesNothing_isGivenOnlySoMuch) {
  device_->isStuck = true;
  open();
  std::vector<Fd> clients;
  for (std::size_t i = 0; i < 2 * Vsock::kMaxLent; ++i) {
    clients.push_back(connect("CONNECT 1\n"));
  }
  ASSERT_TRUE(becomes([&] { return device_->calls == Vsock::kMaxLent; }));
  // Dropped, but not answered.
  device_->held.clear();
  letRun();
  EXPECT_EQ(device_->calls, Vsock::kMaxLent);
  for (auto& answer : device_->answers) {
    answer->fulfill();
  }
  device_->answers.clear();
  EXPECT_TRUE(becomes([&] { return device_->calls == 2 * Vsock::kMaxLent; }));
}

TEST_F(VsockTest, guest_reachesServicesOfItsFolder_andNothingElse) {
  auto host = vsock_->host();
  EXPECT_EQ(errorOf(host, 52).code(), ErrorCode::kNotFound);
  const Fd listener = runtime::listenIn(folder_.get(), "vsock_52", 4);
  auto request = host.connectRequest();
  request.setPort(52);
  auto response = request.send().wait(io_.waitScope);
  ASSERT_FALSE(response.hasError());
  const Fd near = rpc::receiveDescriptor(response.getSocket()).wait(io_.waitScope);
  EXPECT_NE(::fcntl(near.get(), F_GETFL) & O_NONBLOCK, 0);
  const Fd far(::accept(listener.get(), nullptr, nullptr));
  EXPECT_EQ(::write(near.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(far.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  fs::create_symlink("vsock_52", path_ + "/vsock_53");
  EXPECT_EQ(errorOf(host, 53).code(), ErrorCode::kNotFound);
}

TEST_F(VsockTest, serviceThatIsFull_isARefusal_andALineOfTheLog) {
  const Fd listener = runtime::listenIn(folder_.get(), "vsock_52", 0);
  auto host = vsock_->host();
  std::vector<Fd> waiting;
  Error refusal(ErrorCode::kUnknown, "");
  // Nobody accepts: as many wait as the kernel lets.
  while (refusal.code() != ErrorCode::kUnavailable && waiting.size() < 8) {
    auto request = host.connectRequest();
    request.setPort(52);
    auto response = request.send().wait(io_.waitScope);
    if (response.hasError()) {
      refusal = rpc::readError(response.getError());
    } else {
      waiting.push_back(rpc::receiveDescriptor(response.getSocket()).wait(io_.waitScope));
    }
  }
  EXPECT_EQ(refusal.code(), ErrorCode::kUnavailable);
  for (int again = 0; again < 50; ++again) {
    EXPECT_EQ(errorOf(host, 52).code(), ErrorCode::kUnavailable);
  }
  EXPECT_EQ(errorOf(host, 53).code(), ErrorCode::kNotFound);  // which nobody needs to be told
  const std::string said = log();
  EXPECT_NE(said.find("vsock: a connection of the guest was refused: too many wait for the socket vsock_52"),
            std::string::npos)
      << said;
  EXPECT_LT(std::count(said.begin(), said.end(), '\n'), 50) << "a line a second, however often the guest tries";
  vsock_.reset();
  const std::string all = log();
  unsigned told = 0;
  const std::regex lines("was refused: too many|([0-9]+) (?:before it|more connections of the guest were refused)");
  for (std::sregex_iterator line(all.begin(), all.end(), lines); line != std::sregex_iterator(); ++line) {
    told += (*line)[1].matched ? static_cast<unsigned>(std::stoul((*line)[1].str())) : 1;
  }
  EXPECT_EQ(told, 51u) << all;
}

TEST_F(VsockTest, workerThatHoldsWhatItWasGiven_isGivenOnlySoMuch) {
  const Fd listener = runtime::listenIn(folder_.get(), "vsock_52", 100);
  auto host = vsock_->host();
  std::vector<capnp::Response<schema::VsockHost::ConnectResults>> held;
  for (std::size_t i = 0; i < Vsock::kMaxLent; ++i) {
    auto request = host.connectRequest();
    request.setPort(52);
    held.push_back(request.send().wait(io_.waitScope));
    EXPECT_FALSE(held.back().hasError());
  }
  EXPECT_EQ(errorOf(host, 52).code(), ErrorCode::kResourceExhausted);
  held.pop_back();
  EXPECT_EQ(errorOf(host, 52).code(), ErrorCode::kUnknown);
}

TEST_F(VsockTest, end_leavesNothing_andItsWorkerIsToldSo) {
  auto host = vsock_->host();
  open();
  const Fd half = connect("CONN");
  letRun();
  vsock_.reset();
  EXPECT_TRUE(isClosed(half));
  EXPECT_TRUE(fs::is_empty(path_));
  EXPECT_EQ(errorOf(host, 52).code(), ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace vmmhost::vm
