// A client of a console: reads with a deadline, and types.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "tests/conformance/context.h"
#include "vmmhost/fd.h"

namespace vmmhost::conformance {

class ConsoleReader {
 public:
  explicit ConsoleReader(Fd stream) : stream_(std::move(stream)) {}

  // Everything that was read so far.
  const std::string& text() const { return text_; }
  bool ended() const { return ended_; }

  // Reads until the text has `part` from offset `from` on; fails at the end of the stream. The offset behind the part.
  std::size_t readUntil(std::string_view part, std::size_t from = 0);
  // The same for whichever of two comes first: that, and the offset behind it.
  std::pair<std::string_view, std::size_t> readUntilOneOf(std::string_view one, std::string_view other,
                                                          std::size_t from);
  const std::string& readToEnd();
  // Reads what comes until nothing came for `quiet`; true if anything came.
  bool readUntilQuiet(std::chrono::milliseconds quiet);

  void type(std::string_view text);
  // As much of it as is taken at once: bytes taken.
  std::size_t typeWhatFits(std::string_view text);

  int descriptor() const { return stream_.get(); }
  void close() { stream_.reset(); }

 private:
  bool readSome(std::chrono::milliseconds limit);  // false: nothing came

  Fd stream_;
  std::string text_;
  bool ended_ = false;
};

}  // namespace vmmhost::conformance
