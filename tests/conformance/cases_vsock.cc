// The socket that reaches a guest's vsock ports. Bare-metal guests listen on none; what goes through is for stock Linux
// to show.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>

#include "host/runtime/sockets.h"
#include "tests/conformance/case.h"
#include "tests/conformance/context.h"
#include "tests/conformance/json_text.h"
#include "vmmhost/plugin.h"

namespace vmmhost::conformance {

namespace {

constexpr char kVsock[] = R"("vsock":{})";

bool isSocket(const std::string& path) {
  struct stat status = {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

// What comes back for a line, up to the end of the connection.
std::string answerTo(Context& context, const std::string& line) {
  const Fd folder(::open(context.folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Fd socket = runtime::connectIn(folder.get(), runtime::kVsockSocket);
  check(::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size()),
        "the socket takes no line");
  std::string answer;
  while (true) {
    pollfd ready = {socket.get(), POLLIN, 0};
    check(::poll(&ready, 1, static_cast<int>(kPatience.count())) == 1, "nothing comes of the connection");
    char bytes[256];
    const ssize_t count = ::recv(socket.get(), bytes, sizeof bytes, 0);
    if (count <= 0) {
      return answer;
    }
    answer.append(bytes, static_cast<std::size_t>(count));
  }
}

void socketIsTold(Context& context) {
  auto vm = context.start({.members = kVsock});
  const Json info(get(vm->describe(), "describing"));
  const std::string path = info.string("vsockSocket");
  checkEqual(path, context.folder() + "/vsock", "the socket");
  check(isSocket(path), path + " is no socket");
  const auto abilities = info.strings("abilities");
  check(std::find(abilities.begin(), abilities.end(), "vsock") != abilities.end(), "vsock is no ability of the VM");
  get(vm->stop(), "stopping");
  check(!isSocket(path), path + " is still there");
  check(!Json(get(vm->describe(), "describing")).has("vsockSocket"), "an ended VM tells a socket");
}

void noSocketWithoutDevice(Context& context) {
  auto vm = context.start({});
  check(!Json(get(vm->describe(), "describing")).has("vsockSocket"), "a socket is told");
  check(!isSocket(context.folder() + "/vsock"), "a socket is there");
}

void portThatNobodyListensOn(Context& context) {
  auto vm = context.start({.members = kVsock});
  checkEqual(answerTo(context, "CONNECT 999\n"), "", "the answer");
  check(vm->state() == State::kRunning, "the VM runs no more");
}

void nonsense(Context& context) {
  auto vm = context.start({.members = kVsock});
  checkEqual(answerTo(context, "HELLO\n"), "", "the answer");
  checkEqual(answerTo(context, std::string(1000, 'x')), "", "the answer");
  check(vm->state() == State::kRunning, "the VM runs no more");
}

}  // namespace

void addVsockCases(Cases& cases) {
  const std::vector<std::string> needs = {VMMHOST_CAP_BOOT_PVH, VMMHOST_CAP_VSOCK};
  cases.push_back({"vsock.socket-is-told-and-goes-with-the-vm", needs, socketIsTold});
  cases.push_back({"vsock.no-socket-without-a-device", needs, noSocketWithoutDevice});
  cases.push_back({"vsock.port-that-nobody-listens-on", needs, portThatNobodyListensOn});
  cases.push_back({"vsock.nonsense-is-hung-up-on", needs, nonsense});
}

}  // namespace vmmhost::conformance
