// A control client of 1.1: knows schemas/host.capnp and Cap'n Proto, and nothing else of vmmhost.
//
//   client SOCKET CALL[=PARAMETERS]...
//
// Makes the calls one after the other over one connection, with parameters as JSON, and prints each answer as a line of
// JSON: {"call": "info", "results": {"info": {...}}}, or {"call": "...", "failed": "..."}. What a watcher is told comes
// as {"changed": {...}}. SOCKET may be the number of a descriptor. Besides methods of Control there are
//   console={...}   as the method; the line has what the console says up to the end of a line
//   &METHOD         makes the call now, and prints its answer when there is one, at the end at the latest
//   type=TEXT       types TEXT and a line feed on it, and waits for the same to come back
#include <capnp/compat/json.h>
#include <capnp/dynamic.h>
#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "vmmhost/schema/host.capnp.h"

namespace {

using vmmhost::schema::Control;

constexpr int kPatienceMs = 30000;

void print(kj::StringPtr line) {
  std::printf("%s\n", line.cStr());
  std::fflush(stdout);
}

kj::String quoted(const std::string& text) {
  return capnp::JsonCodec().encode(capnp::Text::Reader(text.c_str(), text.size()));
}

void parse(const std::string& json, capnp::DynamicStruct::Builder into) {
  capnp::JsonCodec codec;
  codec.setRejectUnknownFields(true);
  codec.decode(kj::StringPtr(json.c_str(), json.size()), into);
}

class Sink final : public vmmhost::schema::StateSink::Server {
  kj::Promise<void> changed(ChangedContext context) override {
    print(kj::str("{\"changed\": ", capnp::JsonCodec().encode(context.getParams()), "}"));
    return kj::READY_NOW;
  }
};

int connectTo(const char* where) {
  if (where[0] != '/') {
    return std::atoi(where);
  }
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, where, sizeof(address.sun_path) - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0 || ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw std::runtime_error(std::string("connecting to ") + where + ": " + std::strerror(errno));
  }
  return socket;
}

// What comes until it ends with `end`.
std::string readUntil(int fd, const std::string& end) {
  std::string seen;
  while (seen.size() < end.size() || seen.compare(seen.size() - end.size(), end.size(), end) != 0) {
    pollfd readable = {fd, POLLIN, 0};
    char byte;
    if (::poll(&readable, 1, kPatienceMs) != 1 || ::read(fd, &byte, 1) != 1) {
      throw std::runtime_error("the console ended, or said nothing more, after \"" + seen + "\"");
    }
    seen.push_back(byte);
  }
  return seen;
}

class Calls {
 public:
  Calls(kj::AsyncIoContext& io, Control::Client control) : io_(io), control_(kj::mv(control)) {}

  void carryOut(const std::string& word) {
    const std::size_t equals = word.find('=');
    const std::string call = word.substr(0, equals);
    const std::string parameters = equals == std::string::npos ? "{}" : word.substr(equals + 1);
    kj::String results;
    try {
      if (call == "type") {
        const std::string line = parameters + "\n";
        if (::write(console_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
          throw std::runtime_error("the console takes no input");
        }
        results = quoted(readUntil(console_, line));
      } else if (call == "console") {
        results = attach(parameters);
      } else if (call[0] == '&') {
        pending_.add(begin(call.substr(1)));
        return;
      } else {
        results = make(call, parameters);
      }
    } catch (const kj::Exception& exception) {
      print(kj::str("{\"call\": ", quoted(call), ", \"failed\": ", quoted(exception.getDescription().cStr()), "}"));
      return;
    }
    printResults(call, results);
  }

  void awaitPending() { kj::joinPromises(pending_.releaseAsArray()).wait(io_.waitScope); }

 private:
  static void printResults(const std::string& call, const kj::String& results) {
    print(kj::str("{\"call\": ", quoted(call), ", \"results\": ", results, "}"));
  }

  kj::Promise<void> begin(const std::string& call) {
    capnp::DynamicCapability::Client control{Control::Client(control_)};
    return control.newRequest(call.c_str())
        .send()
        .then([call](capnp::Response<capnp::DynamicStruct>&& response) {
          printResults(call, capnp::JsonCodec().encode(capnp::DynamicStruct::Reader(response)));
        })
        .eagerlyEvaluate(nullptr);
  }

  kj::String make(const std::string& call, const std::string& parameters) {
    capnp::DynamicCapability::Client control{Control::Client(control_)};  // a copy: it takes what it is made from
    auto request = control.newRequest(call.c_str());
    if (call == "watch") {
      request.set("sink", vmmhost::schema::StateSink::Client(kj::heap<Sink>()));
    } else {
      parse(parameters, request);
    }
    const auto response = request.send().wait(io_.waitScope);
    return capnp::JsonCodec().encode(capnp::DynamicStruct::Reader(response));
  }

  kj::String attach(const std::string& parameters) {
    auto request = control_.consoleRequest();
    parse(parameters, Control::ConsoleParams::Builder(request));
    auto response = request.send().wait(io_.waitScope);
    if (response.hasError()) {
      return kj::str("{\"error\": ", capnp::JsonCodec().encode(response.getError()), "}");
    }
    stream_ = response.getStream();
    KJ_IF_MAYBE (fd, stream_.getFd().wait(io_.waitScope)) {
      console_ = *fd;
    } else {
      throw std::runtime_error("the console's stream carries no descriptor");
    }
    return quoted(readUntil(console_, "\n"));
  }

  kj::AsyncIoContext& io_;
  Control::Client control_;
  vmmhost::schema::Descriptor::Client stream_ = nullptr;
  int console_ = -1;
  kj::Vector<kj::Promise<void>> pending_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: client SOCKET CALL[=PARAMETERS]...\n");
    return 2;
  }
  try {
    auto io = kj::setupAsyncIo();
    auto stream = io.lowLevelProvider->wrapUnixSocketFd(kj::AutoCloseFd(connectTo(argv[1])));
    capnp::TwoPartyClient client(*stream, 1);
    Calls calls(io, client.bootstrap().castAs<Control>());
    for (int index = 2; index < argc; ++index) {
      calls.carryOut(argv[index]);
    }
    calls.awaitPending();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "client: %s\n", error.what());
  } catch (const kj::Exception& exception) {
    std::fprintf(stderr, "client: %s\n", kj::str(exception).cStr());
  }
  return 1;
}
