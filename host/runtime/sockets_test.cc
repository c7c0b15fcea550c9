#include "host/runtime/sockets.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "host/runtime/testing.h"

namespace vmmhost::runtime::testing {
namespace {

class Sockets : public RuntimeTest {
 protected:
  Sockets() {
    // Longer than an address can be.
    path_ = root / std::string(100, 'd') / std::string(100, 'e');
    fs::create_directories(path_);
    folder_ = Fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ErrorCode connectError(const std::string& name) {
    return errorOf([&] { connectIn(folder_.get(), name); }).code();
  }

  fs::path path_;
  Fd folder_;
};

TEST_F(Sockets, listenerIsForItsOwnerAlone_andIsConnectedTo) {
  const Fd listener = listenIn(folder_.get(), "door", 1);
  struct stat status = {};
  ASSERT_EQ(::stat((path_ / "door").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_NE(::fcntl(listener.get(), F_GETFL) & O_NONBLOCK, 0);
  const Fd client = connectIn(folder_.get(), "door");
  EXPECT_NE(::fcntl(client.get(), F_GETFL) & O_NONBLOCK, 0);
  const Fd accepted(::accept(listener.get(), nullptr, nullptr));
  EXPECT_TRUE(accepted);
}

TEST_F(Sockets, newListener_takesThePlaceOfAnOldOne) {
  { const Fd old = listenIn(folder_.get(), "door", 1); }
  EXPECT_EQ(connectError("door"), ErrorCode::kNotFound);
  const Fd listener = listenIn(folder_.get(), "door", 1);
  EXPECT_TRUE(connectIn(folder_.get(), "door"));
}

TEST_F(Sockets, whatIsNoSocket_orALink_isNotConnectedTo) {
  EXPECT_EQ(connectError("nothing"), ErrorCode::kNotFound);
  write(path_ / "file", "text");
  EXPECT_EQ(connectError("file"), ErrorCode::kNotFound);
  const Fd listener = listenIn(folder_.get(), "door", 1);
  fs::create_symlink("door", path_ / "link");
  EXPECT_EQ(connectError("link"), ErrorCode::kNotFound);
}

TEST_F(Sockets, listenerThatDoesNotAccept_isNotWaitedFor) {
  const Fd listener = listenIn(folder_.get(), "door", 0);
  std::vector<Fd> clients;
  const Error error = errorOf([&] {
    while (clients.size() < 100) {
      clients.push_back(connectIn(folder_.get(), "door"));
    }
  });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(error.retryable());
}

}  // namespace
}  // namespace vmmhost::runtime::testing
