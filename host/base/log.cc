#include "host/base/log.h"

#include <spdlog/details/null_mutex.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include "host/base/text.h"

namespace vmmhost {
namespace {

constexpr std::size_t kMaxRecord = 4096;

class FileSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  FileSink(std::unique_ptr<RotatingFile> file, bool toStandardError)
      : file_(std::move(file)), toStandardError_(toStandardError) {}

  void setFile(std::unique_ptr<RotatingFile> file) { file_ = std::move(file); }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t formatted;
    formatter_->format(message, formatted);
    if (file_) {
      file_->append({formatted.data(), formatted.size()});
    }
    if (toStandardError_) {
      [[maybe_unused]] const auto written = ::write(2, formatted.data(), formatted.size());
    }
  }
  void flush_() override {}

 private:
  std::unique_ptr<RotatingFile> file_;
  bool toStandardError_;
};

spdlog::level::level_enum level(Severity severity) {
  switch (severity) {
    case Severity::kDebug:
      return spdlog::level::debug;
    case Severity::kInfo:
      return spdlog::level::info;
    case Severity::kWarning:
      return spdlog::level::warn;
    case Severity::kError:
      break;
  }
  return spdlog::level::err;
}

}  // namespace

// A logger of its own, not in spdlog's process-wide registry.
struct Log::Impl {
  std::shared_ptr<FileSink> sink;
  spdlog::logger logger;
};

Log::Log(std::unique_ptr<RotatingFile> file, bool toStandardError)
    : impl_([&]() {
        auto sink = std::make_shared<FileSink>(std::move(file), toStandardError);
        return std::make_unique<Impl>(Impl{sink, spdlog::logger("vmmhost", sink)});
      }()) {
  impl_->logger.set_level(spdlog::level::debug);
  impl_->logger.set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %l %v", spdlog::pattern_time_type::utc);
}

Log::~Log() = default;

void Log::setFile(std::unique_ptr<RotatingFile> file) {
  impl_->sink->setFile(std::move(file));
}

void Log::write(Severity severity, std::string_view component, std::string_view message) noexcept {
  try {
    impl_->logger.log(level(severity), "{}: {}", component, printable(message, kMaxRecord));
  } catch (...) {  // out of memory: this record is lost
  }
}

}  // namespace vmmhost
