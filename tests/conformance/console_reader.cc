#include "tests/conformance/console_reader.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace vmmhost::conformance {

namespace {

bool ready(int fd, short what, std::chrono::milliseconds limit) {
  pollfd watched{fd, what, 0};
  return ::poll(&watched, 1, static_cast<int>(limit.count())) == 1;
}

std::string lastPart(const std::string& text) {
  return text.size() <= 300 ? text : "..." + text.substr(text.size() - 300);
}

}  // namespace

bool ConsoleReader::readSome(std::chrono::milliseconds limit) {
  if (ended_ || !ready(stream_.get(), POLLIN, limit)) {
    return false;
  }
  char buffer[65536];
  const ssize_t got = ::read(stream_.get(), buffer, sizeof(buffer));
  if (got > 0) {
    text_.append(buffer, static_cast<std::size_t>(got));
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    ended_ = true;
  }
  return true;
}

std::size_t ConsoleReader::readUntil(std::string_view part, std::size_t from) {
  return readUntilOneOf(part, part, from).second;
}

std::pair<std::string_view, std::size_t> ConsoleReader::readUntilOneOf(std::string_view one, std::string_view other,
                                                                       std::size_t from) {
  for (;;) {
    const std::size_t first = text_.find(one, from);
    const std::size_t second = text_.find(other, from);
    if (std::min(first, second) != std::string::npos) {
      const std::string_view found = first <= second ? one : other;
      return {found, std::min(first, second) + found.size()};
    }
    check(!ended_, "the console ended before \"" + std::string(one) + "\" came; it said: " + lastPart(text_));
    check(readSome(kPatience), "\"" + std::string(one) + "\" did not come; the console said: " + lastPart(text_));
  }
}

const std::string& ConsoleReader::readToEnd() {
  while (!ended_) {
    check(readSome(kPatience), "the console did not end; it said: " + lastPart(text_));
  }
  return text_;
}

bool ConsoleReader::readUntilQuiet(std::chrono::milliseconds quiet) {
  const std::size_t before = text_.size();
  while (!ended_ && readSome(quiet)) {
  }
  return text_.size() > before;
}

void ConsoleReader::type(std::string_view text) {
  while (!text.empty()) {
    check(ready(stream_.get(), POLLOUT, kPatience), "the console takes no input");
    text.remove_prefix(typeWhatFits(text));
  }
}

std::size_t ConsoleReader::typeWhatFits(std::string_view text) {
  const ssize_t sent = ::send(stream_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  check(sent >= 0 || errno == EAGAIN, "the console's stream is broken");
  return sent < 0 ? 0 : static_cast<std::size_t>(sent);
}

}  // namespace vmmhost::conformance
