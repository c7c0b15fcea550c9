#include "host/cli/terminal/attachment.h"

#include <signal.h>
#include <string.h>

#include <functional>
#include <utility>

#include "host/cli/base/output.h"
#include "ipc/rpc/connection.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

constexpr auto kDrainTimeout = 3 * kj::SECONDS;     // for the last output of a VM that has ended
constexpr auto kEchoTime = 200 * kj::MILLISECONDS;  // in which the same signal is no second one

}  // namespace

std::string signalName(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? std::to_string(signal) : "SIG" + std::string(name);
}

ForegroundEvent Attachment::await(kj::Promise<void> before) {
  return client::await(io_, before.then([]() { return ForegroundEvent{}; }).exclusiveJoin(nextSignal()));
}

ForegroundEvent Attachment::follow(kj::Promise<void> before) {
  auto pair = kj::newPromiseAndFulfiller<ForegroundEvent>();
  userEvent_ = kj::mv(pair.fulfiller);
  // Asked for early, so that nothing is missed of a VM that ends at once; taken when the VM has started: until then
  // the terminal's ^C is for us.
  auto early = client_.console(options_.replayBytes, true, options_.port);
  auto outcome = client_.wait().then([this](ControlClient::WaitResponse&& response) { outcome_ = kj::mv(response); });
  auto ended = before
                   .then([this, early = kj::mv(early)]() mutable {
                     consoleDone_ = openConsole(kj::mv(early)).fork();
                     consoleOpened_ = true;
                     return consoleDone_.addBranch();
                   })
                   .then([outcome = kj::mv(outcome)]() mutable { return kj::mv(outcome); })
                   .then([]() { return ForegroundEvent{}; });
  return client::await(io_, ended.exclusiveJoin(kj::mv(pair.promise)).exclusiveJoin(nextSignal()));
}

void Attachment::stop(schema::EndKind kind, const std::string& reason, int signal) {
  auto stopped = client_.stop(kind, reason, client::kStopTimeout, signal)
                     .then([this](ControlClient::StopResponse&& response) { stopped_ = kj::mv(response); })
                     .then([this]() { return drained(); });
  auto interrupted = signalAfter(io_.provider->getTimer().now() + kEchoTime).then([](ForegroundEvent event) {
    return rpc::fail(
        Error(ErrorCode::kCancelled, "interrupted by " + signalName(event.signal) + " while the VM was being ended"));
  });
  client::await(io_, stopped.exclusiveJoin(kj::mv(interrupted)));
}

schema::Outcome::Reader Attachment::outcome() {
  KJ_IF_MAYBE (response, stopped_) {
    return response->getOutcome();
  }
  KJ_IF_MAYBE (response, outcome_) {
    return response->getOutcome();
  }
  return {};
}

std::string Attachment::outputFailure() const {
  const int code = session_.get() == nullptr ? 0 : session_->outputError();
  return code == 0 ? std::string() : systemError("writing the console's output", code).message();
}

kj::Promise<void> Attachment::openConsole(kj::Promise<Fd> early) {
  return early
      .catch_([this](kj::Exception&& exception) -> kj::Promise<Fd> {
        // It was too early: the VM was still being prepared.
        if (rpc::fromKj(exception).code() == ErrorCode::kFailedPrecondition) {
          return client_.console(options_.replayBytes, true, options_.port);
        }
        return kj::mv(exception);
      })
      .then([this](Fd stream) { return attach(std::move(stream)); })
      .catch_([this](kj::Exception&& exception) {
        const Error error = rpc::fromKj(exception);
        const bool isGone = error.code() == ErrorCode::kSupervisorDied || error.code() == ErrorCode::kWorkerDied;
        if (options_.isAllThatIsWanted && !isGone) {
          kj::throwFatalException(kj::mv(exception));
        }
        if (!isGone) {
          note("the console cannot be shown: " + error.message());
        }
      });
}

kj::Promise<void> Attachment::attach(Fd stream) {
  terminal_.emplace(STDIN_FILENO);
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  session_ = kj::heap<ConsoleSession>(
      io_, std::move(stream),
      ConsoleSession::Options{options_.outputFd, options_.readsInput, terminal,
                              terminal ? [this]() { return mayRead(); } : std::function<bool()>()});
  events_ = session_->events()
                .then([this](SessionEvent event) {
                  const auto kind = event.kind == SessionEvent::Kind::kDetach ? ForegroundEvent::Kind::kDetach
                                    : event.kind == SessionEvent::Kind::kKill ? ForegroundEvent::Kind::kKill
                                                                              : ForegroundEvent::Kind::kOutputGone;
                  userEvent_->fulfill(ForegroundEvent{kind});
                })
                .eagerlyEvaluate([](kj::Exception&&) {});
  tellSize();
  return session_->pumpOutput();
}

void Attachment::tellSize() {
  const auto size = session_.get() == nullptr ? std::nullopt : terminalSize(options_.outputFd);
  if (size) {
    resizing_ = client_.resizeConsole(options_.port, size->columns, size->rows).eagerlyEvaluate([](kj::Exception&&) {
    });  // a backend, or a supervisor of before, without it
  }
}

kj::Promise<void> Attachment::drained() {
  if (!consoleOpened_) {
    return kj::READY_NOW;
  }
  return consoleDone_.addBranch().exclusiveJoin(io_.provider->getTimer().afterDelay(kDrainTimeout));
}

kj::Promise<ForegroundEvent> Attachment::nextSignal() {
  return signals_.next().then([this](int signal) -> kj::Promise<ForegroundEvent> {
    if (signal == SIGCONT) {
      if (terminal_) {
        terminal_->reenter();
      }
      return nextSignal();
    }
    if (signal == SIGWINCH) {
      tellSize();
      return nextSignal();
    }
    return ForegroundEvent{ForegroundEvent::Kind::kSignal, signal};
  });
}

kj::Promise<ForegroundEvent> Attachment::signalAfter(kj::TimePoint time) {
  return nextSignal().then([this, time](ForegroundEvent event) -> kj::Promise<ForegroundEvent> {
    return io_.provider->getTimer().now() < time ? signalAfter(time) : kj::Promise<ForegroundEvent>(event);
  });
}

}  // namespace vmmhost::cli
