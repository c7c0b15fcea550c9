#include "host/plugin/choose_aside.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "ipc/rpc/connection.h"
#include "vmmhost/mailbox.h"

namespace vmmhost::plugin {
namespace {

class Chooser {
 public:
  Chooser(kj::UnixEventPort& port, std::shared_ptr<Registry> registry, const std::string& backend)
      : mailbox_(port),
        cancel_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        registry_(std::move(registry)),
        backend_(backend) {
    if (!cancel_) {
      throw systemError("making an eventfd", errno);
    }
    auto paf = kj::newPromiseAndFulfiller<void>();
    done_ = kj::mv(paf.fulfiller);
    promise_ = kj::mv(paf.promise);
    try {
      thread_ = std::thread([this]() { choose(); });
    } catch (const std::system_error&) {
      choose();  // no memory for a stack, or as many threads as there may be
    }
  }
  ~Chooser() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(cancel_.get(), &one, sizeof(one));
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  Chooser(const Chooser&) = delete;
  Chooser& operator=(const Chooser&) = delete;

  kj::Promise<Registry::Choice> choice() {
    return promise_.then(rpc::guarded([this]() {
      for (const LogLine& line : said_) {
        registry_->log(line.level, line.text);
      }
      if (error_) {
        throw *error_;
      }
      return std::move(*choice_);
    }));
  }

 private:
  void choose() {
    const LogSink log = [this](int level, std::string_view line) { said_.push_back({level, std::string(line)}); };
    try {
      if (backend_.empty()) {
        choice_ = registry_->choose(cancel_.get(), log);
      } else {
        registry_->prove(backend_, cancel_.get(), log);
        choice_.emplace().backend.name = backend_;
      }
    } catch (const Error& error) {
      error_ = error;
    } catch (const std::exception& exception) {
      error_ = Error(ErrorCode::kInternal, std::string("choosing a backend: ") + exception.what());
    }
    mailbox_.post([this]() { done_->fulfill(); });
  }

  Mailbox mailbox_;
  Fd cancel_;
  std::shared_ptr<Registry> registry_;
  const std::string backend_;
  std::optional<Registry::Choice> choice_;  // all three written before the post
  std::optional<Error> error_;
  std::vector<LogLine> said_;
  kj::Own<kj::PromiseFulfiller<void>> done_;
  kj::Promise<void> promise_ = nullptr;
  std::thread thread_;
};

}  // namespace

kj::Promise<Registry::Choice> chooseAside(kj::UnixEventPort& port, std::shared_ptr<Registry> registry,
                                          const std::string& backend) {
  auto chooser = kj::heap<Chooser>(port, std::move(registry), backend);
  auto choice = chooser->choice();
  return choice.attach(kj::mv(chooser));
}

}  // namespace vmmhost::plugin
