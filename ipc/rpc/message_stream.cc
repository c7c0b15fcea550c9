#include "ipc/rpc/message_stream.h"

#include <capnp/rpc.capnp.h>
#include <kj/debug.h>
#include <kj/time.h>

#include <algorithm>
#include <cstring>

#include "ipc/rpc/received.h"

namespace vmmhost::rpc {
namespace {

constexpr std::size_t kWordBytes = sizeof(capnp::word);
constexpr std::size_t kMaxPendingFds = 4;
constexpr std::size_t kCoalescedBytes = 8 * 1024;

std::uint32_t readU32(const std::uint8_t* at) {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof(value));  // the stream is little-endian, as is every machine this runs on
  return value;
}

// A message in one allocation.
class OwnedMessageReader final : public capnp::MessageReader {
 public:
  OwnedMessageReader(kj::Array<capnp::word> words, const FrameHeader& header, capnp::ReaderOptions options)
      : MessageReader(options), words_(kj::mv(words)), segmentCount_(header.segmentCount) {
    std::size_t offset = 0;
    for (std::uint32_t i = 0; i < segmentCount_; ++i) {
      segments_[i] = words_.slice(offset, offset + header.segmentWords[i]);
      offset += header.segmentWords[i];
    }
  }
  kj::ArrayPtr<const capnp::word> getSegment(capnp::uint id) override {
    return id < segmentCount_ ? segments_[id] : kj::ArrayPtr<const capnp::word>();
  }

 private:
  kj::Array<capnp::word> words_;
  std::uint32_t segmentCount_;
  kj::ArrayPtr<const capnp::word> segments_[16];
};

}  // namespace

FrameHeader parseFrameHeader(const std::uint8_t* data, std::size_t size, const Limits& limits) {
  FrameHeader header;
  header.headerBytes = kWordBytes;
  if (size < kWordBytes) {
    return header;
  }
  const std::uint32_t countMinusOne = readU32(data);
  const std::uint32_t maxSegments = std::min<std::uint32_t>(limits.maxSegments, 16);
  if (countMinusOne >= maxSegments) {
    header.state = FrameHeader::State::kRefused;
    header.reason = "a message with too many segments";
    return header;
  }
  header.segmentCount = countMinusOne + 1;
  const std::size_t tableBytes = 4 + 4 * std::size_t{header.segmentCount};
  header.headerBytes = (tableBytes + kWordBytes - 1) / kWordBytes * kWordBytes;
  if (size < header.headerBytes) {
    return header;
  }
  for (std::uint32_t i = 0; i < header.segmentCount; ++i) {
    header.segmentWords[i] = readU32(data + 4 + 4 * std::size_t{i});
    header.bodyWords += header.segmentWords[i];
  }
  if (header.bodyWords > limits.maxMessageWords) {
    header.state = FrameHeader::State::kRefused;
    header.reason = "a message over the size limit";
    return header;
  }
  header.state = FrameHeader::State::kComplete;
  return header;
}

const char* RpcPolice::checkQuestion(std::uint32_t id, std::uint64_t words) {
  if (++openQuestions_ > limits_.maxOpenQuestions) {
    return "too many unfinished calls";
  }
  if (unanswered_.size() >= limits_.maxOpenQuestions) {
    return "too many calls that it did not wait for";
  }
  // The library would read no further, and see the end of the connection no more.
  if (unansweredWords_ > limits_.flowLimitWords) {
    return "too much in calls that are not answered yet";
  }
  if (!unanswered_.emplace(id, words).second) {
    return "a call with a number that is in use";
  }
  unansweredWords_ += words;
  return nullptr;
}

const char* RpcPolice::check(capnp::MessageReader& message, std::uint64_t words) {
  using capnp::rpc::Message;
  const auto root = message.getRoot<Message>();
  const auto tooMany = [this](capnp::rpc::Payload::Reader payload) {
    return payload.getCapTable().size() > limits_.maxCapabilities ? "a message with too many capabilities" : nullptr;
  };
  switch (root.which()) {
    case Message::BOOTSTRAP:
      return checkQuestion(root.getBootstrap().getQuestionId(), words);
    case Message::CALL: {
      const char* reason = checkQuestion(root.getCall().getQuestionId(), words);
      return reason != nullptr ? reason : tooMany(root.getCall().getParams());
    }
    case Message::RETURN:
      ownCalls_ -= ownCalls_ > 0 ? 1 : 0;
      return root.getReturn().isResults() ? tooMany(root.getReturn().getResults()) : nullptr;
    case Message::FINISH:
      if (openQuestions_ == 0) {
        return "a finish without a call";
      }
      --openQuestions_;
      return nullptr;
    case Message::PROVIDE:
    case Message::ACCEPT:
    case Message::JOIN:
    case Message::OBSOLETE_SAVE:
    case Message::OBSOLETE_DELETE:
      return "a message kind that a two-party connection has no use for";
    case Message::UNIMPLEMENTED:
    case Message::ABORT:
    case Message::RESOLVE:
    case Message::RELEASE:
    case Message::DISEMBARGO:
      return nullptr;
  }
  // The library would send it back, copied as often as its pointers say.
  return "a message of an unknown kind";
}

void RpcPolice::noteSent(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  using capnp::rpc::Message;
  capnp::SegmentArrayMessageReader message(segments);
  const auto root = message.getRoot<Message>();
  if (root.isCall() || root.isBootstrap()) {
    ++ownCalls_;
  } else if (root.isReturn()) {
    if (const auto answered = unanswered_.find(root.getReturn().getAnswerId()); answered != unanswered_.end()) {
      unansweredWords_ -= answered->second;
      unanswered_.erase(answered);
    }
  }
}

BoundedMessageStream::BoundedMessageStream(kj::AsyncCapabilityStream& stream, kj::Timer& timer, const Limits& limits)
    : stream_(stream), timer_(timer), limits_(limits), police_(limits) {
}

void BoundedMessageStream::refuse(const char* reason) {
  violation_ = reason;
  kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "the peer sent ", reason));
}

kj::Promise<void> BoundedMessageStream::waitForQueue() {
  KJ_IF_MAYBE (failure, writeFailure_) {
    return kj::cp(*failure);
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  queueWaiter_ = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

kj::Promise<BoundedMessageStream::MaybeMessage> BoundedMessageStream::tryReadMessage(
    kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options, kj::ArrayPtr<capnp::word>) {
  if (queueIsFull()) {
    return waitForQueue().then([this, fdSpace, options]() { return tryReadMessage(fdSpace, options); });
  }
  if (police_.unanswered() >= limits_.maxQueuedMessages) {
    // What was asked before is carried out first: only then is it known how many answers wait.
    return kj::evalLast([this, fdSpace, options]() {
      return queueIsFull() ? tryReadMessage(fdSpace, options) : readInTurn(fdSpace, options);
    });
  }
  return readInTurn(fdSpace, options);
}

kj::Promise<BoundedMessageStream::MaybeMessage> BoundedMessageStream::readInTurn(kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                                                                 capnp::ReaderOptions options) {
  // The timer's time is that at which the event port was looked at last. A flood, on however many sockets, must not
  // keep what else is due waiting: a timer fires only after the next look.
  if (kj::systemPreciseMonotonicClock().now() - timer_.now() > limits_.turn.count() * kj::MICROSECONDS) {
    return timer_.afterDelay(0 * kj::NANOSECONDS).then([this, fdSpace, options]() {
      return readFrame(fdSpace, options);
    });
  }
  return readFrame(fdSpace, options);
}

kj::Promise<std::size_t> BoundedMessageStream::fill() {
  if (begin_ > 0) {
    std::memmove(buffer_, buffer_ + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (!limits_.acceptDescriptors) {
    // A plain read: the kernel closes descriptors that come with the bytes.
    return stream_.tryRead(buffer_ + end_, 1, kBufferBytes - end_).then([this](std::size_t count) {
      end_ += count;
      received_ += count;
      return count;
    });
  }
  auto space = kj::heapArray<kj::AutoCloseFd>(1);
  auto* slot = space.begin();
  return stream_.tryReadWithFds(buffer_ + end_, 1, kBufferBytes - end_, slot, 1)
      .then([this, space = kj::mv(space)](kj::AsyncCapabilityStream::ReadResult result) mutable {
        end_ += result.byteCount;
        received_ += result.byteCount;
        if (result.capCount > 0) {
          if (pendingFds_.size() >= kMaxPendingFds) {
            refuse("descriptors that belong to no message");
          }
          pendingFds_.push_back({kj::mv(space[0]), received_});
        }
        return result.byteCount;
      });
}

kj::Promise<BoundedMessageStream::MaybeMessage> BoundedMessageStream::readFrame(kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                                                                capnp::ReaderOptions options) {
  const FrameHeader header = parseFrameHeader(buffer_ + begin_, end_ - begin_, limits_);
  if (header.state == FrameHeader::State::kRefused) {
    refuse(header.reason);
  }
  if (header.state == FrameHeader::State::kComplete) {
    return readBody(header, fdSpace, options);
  }
  return fill().then([this, fdSpace, options](std::size_t count) -> kj::Promise<MaybeMessage> {
    if (count == 0) {
      if (end_ != begin_) {
        refuse("half a message before the end of the connection");
      }
      return MaybeMessage(nullptr);
    }
    return readFrame(fdSpace, options);
  });
}

kj::Promise<BoundedMessageStream::MaybeMessage> BoundedMessageStream::readBody(const FrameHeader& header,
                                                                               kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                                                               capnp::ReaderOptions options) {
  options.traversalLimitInWords = limits_.maxMessageWords;
  auto words = kj::heapArray<capnp::word>(header.bodyWords);
  begin_ += header.headerBytes;
  const std::size_t wanted = header.bodyWords * kWordBytes;
  const std::size_t have = std::min(wanted, end_ - begin_);
  auto* bytes = reinterpret_cast<std::uint8_t*>(words.begin());
  std::memcpy(bytes, buffer_ + begin_, have);
  begin_ += have;
  if (have == wanted) {
    return finish(kj::heap<OwnedMessageReader>(kj::mv(words), header, options), header.bodyWords, fdSpace);
  }
  return stream_.tryRead(bytes + have, wanted - have, wanted - have)
      .then([this, header, options, fdSpace, missing = wanted - have,
             words = kj::mv(words)](std::size_t count) mutable -> MaybeMessage {
        received_ += count;
        if (count < missing) {
          refuse("half a message before the end of the connection");
        }
        return finish(kj::heap<OwnedMessageReader>(kj::mv(words), header, options), header.bodyWords, fdSpace);
      });
}

BoundedMessageStream::MaybeMessage BoundedMessageStream::finish(kj::Own<capnp::MessageReader> reader,
                                                                std::uint64_t words,
                                                                kj::ArrayPtr<kj::AutoCloseFd> fdSpace) {
  if (const char* reason = police_.check(*reader, words)) {
    refuse(reason);
  }
  std::size_t fdCount = 0;
  const std::uint64_t messageEnd = received_ - (end_ - begin_);
  while (!pendingFds_.empty() && messageEnd >= pendingFds_.front().readEnd) {
    if (fdCount < fdSpace.size()) {
      kj::AutoCloseFd fd = kj::mv(pendingFds_.front().fd);
      if (!limits_.duplicatesDescriptors) {
        fd = received::putAside(kj::mv(fd));
      }
      if (fd.get() >= 0) {
        fdSpace[fdCount++] = kj::mv(fd);
      }
    }
    pendingFds_.pop_front();
  }
  return MaybeMessage(capnp::MessageReaderAndFds{kj::mv(reader), fdSpace.slice(0, fdCount)});
}

void BoundedMessageStream::noteWritten() {
  KJ_IF_MAYBE (waiter, queueWaiter_) {
    // The message just written still counts: it leaves the queue after this continuation.
    if (!queueCount_ || queueCount_() <= limits_.maxQueuedMessages / 2 + 1) {
      (*waiter)->fulfill();
      queueWaiter_ = nullptr;
    }
  }
}

void BoundedMessageStream::append(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  police_.noteSent(segments);
  const std::size_t tableWords = segments.size() / 2 + 1;  // count and sizes as 32-bit numbers, padded
  std::size_t at = out_.size();
  std::size_t total = tableWords * kWordBytes;
  for (const auto& segment : segments) {
    total += segment.size() * kWordBytes;
  }
  out_.resize(at + total);
  const auto put = [&](std::uint32_t value) {
    std::memcpy(out_.data() + at, &value, sizeof(value));
    at += sizeof(value);
  };
  const std::size_t bodyAt = at + tableWords * kWordBytes;
  put(static_cast<std::uint32_t>(segments.size() - 1));
  for (const auto& segment : segments) {
    put(static_cast<std::uint32_t>(segment.size()));
  }
  at = bodyAt;
  for (const auto& segment : segments) {
    std::memcpy(out_.data() + at, segment.begin(), segment.size() * kWordBytes);
    at += segment.size() * kWordBytes;
  }
}

kj::Promise<void> BoundedMessageStream::appended() {
  if (!flushScheduled_) {
    flushScheduled_ = true;
    flush_ = kj::evalLast([this]() { return flush(); }).fork();
  }
  // While the socket takes no more, messages queue where they are counted: in front of this stream.
  return writing_.empty() && out_.size() < kCoalescedBytes ? kj::Promise<void>(kj::READY_NOW) : flush_.addBranch();
}

kj::Promise<void> BoundedMessageStream::flush() {
  if (out_.empty()) {
    flushScheduled_ = false;
    return kj::READY_NOW;
  }
  writing_.swap(out_);
  // A write that fails at once throws.
  return kj::evalNow([this]() { return stream_.write(writing_.data(), writing_.size()); })
      .then(
          [this]() {
            writing_.clear();
            noteWritten();
            return flush();
          },
          [this](kj::Exception&& failure) { return writeFailed(kj::mv(failure)); });
}

kj::Promise<void> BoundedMessageStream::writeFailed(kj::Exception&& failure) {
  // The queue will get no shorter. Who waits for that must not sleep over the end of the connection.
  writeFailure_ = kj::cp(failure);
  KJ_IF_MAYBE (waiter, queueWaiter_) {
    (*waiter)->reject(kj::cp(failure));
    queueWaiter_ = nullptr;
  }
  return kj::mv(failure);
}

kj::Promise<void> BoundedMessageStream::flushed() {
  return flushScheduled_ ? flush_.addBranch() : kj::Promise<void>(kj::READY_NOW);
}

kj::Promise<void> BoundedMessageStream::writeMessage(kj::ArrayPtr<const int> fds,
                                                     kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  if (fds.size() == 0) {
    append(segments);
    return appended();
  }
  police_.noteSent(segments);
  return flushed()
      .then([this, fds, segments]() { return capnp::writeMessage(stream_, fds, segments); })
      .then(
          [this]() -> kj::Promise<void> {
            noteWritten();
            return kj::READY_NOW;
          },
          [this](kj::Exception&& failure) { return writeFailed(kj::mv(failure)); });
}

kj::Promise<void> BoundedMessageStream::writeMessages(
    kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) {
  for (const auto& segments : messages) {
    append(segments);
  }
  return appended();
}

kj::Promise<void> BoundedMessageStream::end() {
  return flushed().then([this]() { stream_.shutdownWrite(); });
}

}  // namespace vmmhost::rpc
