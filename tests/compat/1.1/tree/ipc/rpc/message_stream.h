// Cap'n Proto messages over a Unix socket, with limits that hold before anything is allocated.
//
// Framing: https://capnproto.org/encoding.html#serialization-over-a-stream. The library's own reader is not used: in
// 0.9.2 a segment count that wraps to 0 writes past its table.
#pragma once

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>
#include <kj/async-io.h>
#include <kj/io.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ipc/rpc/connection.h"

namespace vmmhost::rpc {

// Checks the segment table of a message; a pure function for tests and fuzzing.
struct FrameHeader {
  enum class State { kNeedMore, kComplete, kRefused };
  State state = State::kNeedMore;
  std::size_t headerBytes = 0;  // of the segment table, padding included; what is needed when kNeedMore
  std::uint64_t bodyWords = 0;
  std::uint32_t segmentCount = 0;
  std::uint32_t segmentWords[16] = {};  // Limits::maxSegments is at most 16
  const char* reason = nullptr;         // when refused
};
FrameHeader parseFrameHeader(const std::uint8_t* data, std::size_t size, const Limits& limits);

// Follows the RPC messages that a peer sends and tells when they break a rule that bounds what the peer may cost.
class RpcPolice {
 public:
  explicit RpcPolice(const Limits& limits) : limits_(limits) {}
  // Of a message that came, with its size: the reason why it is refused, or null.
  const char* check(capnp::MessageReader& message, std::uint64_t words);
  // Of a message that goes out.
  void noteSent(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments);
  std::uint32_t openQuestions() const { return openQuestions_; }
  std::size_t unanswered() const { return unanswered_.size(); }
  std::size_t ownCalls() const { return ownCalls_; }  // that the peer has not answered

 private:
  const char* checkQuestion(std::uint32_t id, std::uint64_t words);

  Limits limits_;
  std::uint32_t openQuestions_ = 0;  // that the peer has not finished
  // That we have not answered, with their sizes: a call goes on although its caller gave it up.
  std::map<std::uint32_t, std::uint64_t> unanswered_;
  std::uint64_t unansweredWords_ = 0;
  std::size_t ownCalls_ = 0;
};

// One reader and one writer at a time, as TwoPartyVatNetwork has them.
class BoundedMessageStream final : public capnp::MessageStream {
 public:
  BoundedMessageStream(kj::AsyncCapabilityStream& stream, kj::Timer& timer, const Limits& limits);

  // The number of messages that wait to be written: reading rests while it is at its limit, so that a peer that does
  // not take its replies gets no more of them made.
  void setQueueCount(std::function<std::size_t()> count) { queueCount_ = std::move(count); }
  const std::string& violation() const { return violation_; }
  const RpcPolice& police() const { return police_; }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options = capnp::ReaderOptions(),
      kj::ArrayPtr<capnp::word> scratchSpace = nullptr) override;
  kj::Promise<void> writeMessage(kj::ArrayPtr<const int> fds,
                                 kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override;
  // The window of a streaming call's flow control: half as many of the smallest calls as may be open.
  kj::Maybe<int> getSendBufferSize() override { return static_cast<int>(limits_.maxOpenQuestions / 2 * kSmallestCall); }
  kj::Promise<void> end() override;

 private:
  using MaybeMessage = kj::Maybe<capnp::MessageReaderAndFds>;
  static constexpr std::size_t kBufferBytes = 4096;
  static constexpr std::size_t kSmallestCall = 16 * 8;  // bytes, with parameters that say anything

  bool queueIsFull() const { return queueCount_ && queueCount_() >= limits_.maxQueuedMessages; }
  kj::Promise<MaybeMessage> readInTurn(kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options);
  kj::Promise<MaybeMessage> readFrame(kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options);
  kj::Promise<MaybeMessage> readBody(const FrameHeader& header, kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                     capnp::ReaderOptions options);
  MaybeMessage finish(kj::Own<capnp::MessageReader> reader, std::uint64_t words, kj::ArrayPtr<kj::AutoCloseFd> fdSpace);
  kj::Promise<std::size_t> fill();  // reads more into the buffer; 0: end of file
  kj::Promise<void> waitForQueue();
  void noteWritten();
  void append(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments);
  kj::Promise<void> appended();
  kj::Promise<void> flush();
  kj::Promise<void> writeFailed(kj::Exception&& failure);
  kj::Promise<void> flushed();  // everything that was appended has been written
  [[noreturn]] void refuse(const char* reason);

  kj::AsyncCapabilityStream& stream_;
  kj::Timer& timer_;
  Limits limits_;
  RpcPolice police_;
  std::function<std::size_t()> queueCount_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> queueWaiter_;
  std::string violation_;

  std::uint8_t buffer_[kBufferBytes];
  std::size_t begin_ = 0, end_ = 0;  // unread bytes of buffer_
  // Received descriptors that no message took yet, each with the stream offset at which the read that brought it
  // ended. The kernel ends a read behind bytes that carried descriptors, so the owner is the first message that ends
  // at or behind that offset.
  struct PendingFd {
    kj::AutoCloseFd fd;
    std::uint64_t readEnd = 0;
  };
  std::deque<PendingFd> pendingFds_;
  std::uint64_t received_ = 0;  // stream offset of what was read so far

  // Messages of one turn of the loop leave in one write, at its end: a call and the finish of the one before it wake
  // the peer once.
  std::vector<std::uint8_t> out_;      // taken, not yet given to the socket
  std::vector<std::uint8_t> writing_;  // being written
  bool flushScheduled_ = false;
  kj::Maybe<kj::Exception> writeFailure_;
  kj::ForkedPromise<void> flush_ = nullptr;
};

}  // namespace vmmhost::rpc
