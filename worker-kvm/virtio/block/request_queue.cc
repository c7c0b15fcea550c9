#include "worker-kvm/virtio/block/request_queue.h"

#include <asm/unistd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace vmmhost::kvm::virtio::block {

namespace {

constexpr std::uint64_t kErrorsToldEach = 8;

confine::Rules rulesFor(const Common& common, const Engine& engine) {
  confine::Rules rules = engine.rules();
  for (const int descriptor : common.interrupts.descriptors()) {
    rules.push_back(confine::callOn(__NR_write, descriptor));
  }
  if (common.blocking != nullptr) {
    rules.push_back(confine::callOn(__NR_write, common.blocking->wakeDescriptor()));
  }
  rules.push_back(confine::callOn(__NR_write, STDERR_FILENO));  // the log
  return rules;
}

const char* nameOf(Action action) noexcept {
  switch (action) {
    case Action::kRead:
      return "reading";
    case Action::kWrite:
      return "writing";
    case Action::kFlush:
      return "flushing";
    case Action::kDiscard:
      return "discarding";
    case Action::kWriteZeroes:
      return "zeroing";
    case Action::kAnswer:
    case Action::kGetId:
      break;
  }
  return "answering";
}

}  // namespace

RequestQueue::RequestQueue(const std::string& threadName, const Common& common, std::unique_ptr<Engine> engine,
                           Completions& completions)
    : common_(common),
      engine_(std::move(engine)),
      blocking_(completions),
      thread_(*this, threadName, rulesFor(common, *engine_)) {
  chain_.readable.reserve(kQueueSize);
  chain_.writable.reserve(kQueueSize);
  if (engine_->descriptor() >= 0) {
    thread_.events().watch(engine_->descriptor(), EPOLLIN, completions_);
  }
  // Edges need no reading of the eventfd; so do the driver's notifications.
  thread_.events().watch(blocking_.descriptor(), EPOLLIN | EPOLLET, returned_);
}

void RequestQueue::deactivate(std::function<void()> done) noexcept {
  blocking_.setAbandoned(true);
  thread_.deactivate(std::move(done));
}

void RequestQueue::beginEnd() noexcept {
  blocking_.setAbandoned(true);
  thread_.beginEnd();
}

void RequestQueue::start(Activation activation) noexcept {
  active_ = activation.moveQueue(0);
  if (!active_) {
    return;
  }
  shape_ = common_.shape;
  isBroken_ = false;
  isFull_ = false;
  hasUsed_ = false;
  blocking_.setAbandoned(false);
  thread_.events().watch(active_->notified, EPOLLIN | EPOLLET, kicked_);
  serve();  // what was made available before
  settle();
}

bool RequestQueue::stop() noexcept {
  if (!active_) {
    return true;
  }
  thread_.events().unwatch(active_->notified, kicked_);
  handOver();
  publish();
  isStopping_ = slots_.used() != 0;
  if (!isStopping_) {
    active_.reset();
  }
  return !isStopping_;
}

void RequestQueue::serve() noexcept {
  if (!active_ || isStopping_ || isBroken_) {
    return;
  }
  // A driver that never stops must not keep the thread from its posts.
  unsigned budget = 2 * kQueueSize;
  active_->queue.disableNotifications();
  while (fetchAvailable(budget)) {
  }
  handOver();
  publish();
}

// True: there is more to fetch.
bool RequestQueue::fetchAvailable(unsigned& budget) noexcept {
  Queue& queue = active_->queue;
  isFull_ = false;
  while (true) {
    if (slots_.isEmpty()) {
      isFull_ = true;
      return false;
    }
    if (budget == 0) {
      thread_.events().post(kicked_);
      return false;
    }
    const Queue::Fetched fetched = queue.fetch(chain_);
    if (fetched == Queue::Fetched::kBroken) {
      breakDevice("a chain of descriptors breaks the rules");
      return false;
    }
    if (fetched == Queue::Fetched::kNone) {
      break;
    }
    --budget;
    accept();
    if (isBroken_) {
      return false;
    }
  }
  // What was fetched together goes to the kernel together; what is done at once is told at once.
  handOver();
  engine_->reap(*this);
  publish();
  if (!queue.enableNotifications()) {
    return false;
  }
  queue.disableNotifications();
  return true;
}

void RequestQueue::handOver() noexcept {
  if (!engine_->submit()) {
    thread_.events().post(completions_);
  }
}

void RequestQueue::publish() noexcept {
  if (std::exchange(hasUsed_, false) && active_->queue.needsInterrupt()) {
    common_.interrupts.queueUsed(active_->index);
  }
}

void RequestQueue::reap() noexcept {
  engine_->reap(*this);
  settle();
}

void RequestQueue::takeReturns() noexcept {
  for (BlockingWork* work = blocking_.takeAll(); work != nullptr;) {
    const BlockingWork& done = *std::exchange(work, work->next);
    completed(done.tag, done.result);
  }
  settle();
}

// After anything that finished requests.
void RequestQueue::settle() noexcept {
  if (!active_) {
    return;
  }
  handOver();
  publish();
  if (isFull_) {
    serve();
  }
  if (isStopping_ && slots_.used() == 0) {
    isStopping_ = false;
    active_.reset();
    thread_.stopped();
  }
}

void RequestQueue::breakDevice(const char* reason) noexcept {
  isBroken_ = true;
  common_.interrupts.deviceBroken(reason);
}

void RequestQueue::accept() noexcept {
  const std::optional<Request> request = parseRequest(chain_, shape_);
  if (!request) {
    return breakDevice("a request has no room for its status");
  }
  switch (request->action) {
    case Action::kAnswer:
      return answer(chain_.head, *request, request->answer, 0);
    case Action::kGetId:
      copyTo(chain_.writable, 0, {common_.id.data(), request->bytes});
      return answer(chain_.head, *request, Status::kOk, request->bytes);
    case Action::kRead:
    case Action::kWrite:
      return acceptData(*request);
    case Action::kFlush:
      return acceptFlush(*request);
    case Action::kDiscard:
    case Action::kWriteZeroes:
      return acceptRanges(*request);
  }
}

std::uint16_t RequestQueue::takeSlot(const Request& request) noexcept {
  const std::uint16_t tag = slots_.allocate();
  Slot& slot = slots_[tag];
  slot.request = request;
  slot.head = chain_.head;
  slot.many = slot.ranges = kNone;
  slot.offset = request.offset;
  slot.bytes = request.bytes;
  return tag;
}

void RequestQueue::acceptData(const Request& request) noexcept {
  const std::uint16_t tag = takeSlot(request);
  Slot& slot = slots_[tag];
  const bool isRead = request.action == Action::kRead;
  std::span<iovec> room = slot.few;
  if ((isRead ? chain_.writable : chain_.readable).size() > room.size()) {
    slot.many = manySegments_.allocate();
    room = manySegments_[slot.many];
  }
  slot.segments = dataOf(chain_, request, room);
  slot.kind = isRead ? Engine::Kind::kRead : mustBeDurable() ? Engine::Kind::kDurableWrite : Engine::Kind::kWrite;
  begin(tag);
}

void RequestQueue::acceptFlush(const Request& request) noexcept {
  if (common_.unsafe || shape_.readOnly) {
    return answer(chain_.head, request, Status::kOk, 0);
  }
  const std::uint16_t tag = takeSlot(request);
  slots_[tag].segments = {};
  slots_[tag].kind = Engine::Kind::kSyncData;
  begin(tag);
}

void RequestQueue::acceptRanges(const Request& request) noexcept {
  const std::uint16_t list = ranges_.allocate();
  const ParsedRanges parsed = parseRanges(chain_, request, shape_, ranges_[list]);
  if (parsed.count == 0) {
    ranges_.free(list);
    return answer(chain_.head, request, parsed.status, 0);
  }
  const std::uint16_t tag = takeSlot(request);
  Slot& slot = slots_[tag];
  slot.ranges = list;
  slot.segments = {};
  slot.bytes = 0;
  slot.work.ranges = std::span(ranges_[list]).first(parsed.count);
  sendWork(tag);
}

void RequestQueue::begin(std::uint16_t tag) noexcept {
  Slot& slot = slots_[tag];
  while (true) {
    if (!common_.file.isAligned(slot.segments, slot.offset, slot.bytes)) {
      return sendWork(tag);
    }
    const std::optional<std::int64_t> result =
        engine_->start({slot.kind, slot.segments, slot.offset, std::uint32_t{tag}});
    if (!result || isFinishedBy(tag, *result)) {
      return;
    }
  }
}

void RequestQueue::sendWork(std::uint16_t tag) noexcept {
  Slot& slot = slots_[tag];
  BlockingWork& work = slot.work;
  work.action = slot.request.action;
  work.durable = slot.request.action != Action::kRead && mustBeDurable();
  work.segments = slot.segments;
  work.offset = slot.offset;
  work.bytes = slot.bytes;
  work.tag = tag;
  work.completions = &blocking_;
  common_.blocking->send(work);
}

void RequestQueue::completed(std::uint32_t tag, std::int64_t result) noexcept {
  const auto slot = static_cast<std::uint16_t>(tag);
  if (!isFinishedBy(slot, result)) {
    begin(slot);
  }
}

// False: a part is left.
bool RequestQueue::isFinishedBy(std::uint16_t tag, std::int64_t result) noexcept {
  Slot& slot = slots_[tag];
  const bool isTransfer = slot.request.action == Action::kRead || slot.request.action == Action::kWrite;
  if (isTransfer && result == 0) {
    result = -EIO;  // the file has become shorter
  }
  if (result < 0) {
    report(slot, result);
    finish(tag, Status::kIoErr);
    return true;
  }
  std::uint64_t moved = isTransfer ? std::min(static_cast<std::uint64_t>(result), slot.bytes) : 0;
  slot.offset += moved;
  slot.bytes -= moved;
  if (!isTransfer || slot.bytes == 0) {
    finish(tag, Status::kOk);
    return true;
  }
  while (moved != 0) {
    iovec& first = slot.segments.front();
    const std::uint64_t part = std::min<std::uint64_t>(moved, first.iov_len);
    first = {static_cast<std::uint8_t*>(first.iov_base) + part, first.iov_len - part};
    moved -= part;
    if (first.iov_len == 0) {
      slot.segments = slot.segments.subspan(1);
    }
  }
  return false;
}

void RequestQueue::finish(std::uint16_t tag, Status status) noexcept {
  Slot& slot = slots_[tag];
  const bool isRead = slot.request.action == Action::kRead;
  answer(slot.head, slot.request, status, isRead ? slot.request.bytes - slot.bytes : 0);
  if (slot.many != kNone) {
    manySegments_.free(slot.many);
  }
  if (slot.ranges != kNone) {
    ranges_.free(slot.ranges);
  }
  slots_.free(tag);
}

void RequestQueue::answer(std::uint16_t head, const Request& request, Status status, std::uint64_t moved) noexcept {
  *request.status = static_cast<std::uint8_t>(status);
  // 2.7.8.2: counted from the first byte that may be written; the status is the last one.
  active_->queue.publishUsed(head, static_cast<std::uint32_t>(moved == request.room ? moved + 1 : moved));
  hasUsed_ = true;
}

// The guest can make errors without end: the log hears of the first few, then ever more rarely.
void RequestQueue::report(const Slot& slot, std::int64_t result) noexcept {
  ++errors_;
  const bool isFull = result == -ENOSPC || result == -EDQUOT;
  if (isFull && common_.full && std::has_single_bit(++errorsForWantOfRoom_)) {
    common_.full();
  }
  if (!common_.log || result == -ECANCELED || (errors_ > kErrorsToldEach && !std::has_single_bit(errors_))) {
    return;
  }
  const char* reason = ::strerrordesc_np(static_cast<int>(-result));
  std::string text = common_.file.name() + ": " + nameOf(slot.request.action);
  if (slot.bytes != 0) {
    text += ' ' + std::to_string(slot.bytes) + " bytes at " + std::to_string(slot.offset);
  }
  text += std::string(": ") + (reason == nullptr ? "unknown error" : reason);
  if (errors_ > kErrorsToldEach) {
    text += " (error " + std::to_string(errors_) + ")";
  }
  common_.log(text);
}

bool RequestQueue::mustBeDurable() const noexcept {
  return !common_.unsafe && common_.writeThrough.load(std::memory_order_relaxed);
}

}  // namespace vmmhost::kvm::virtio::block
