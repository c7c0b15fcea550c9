#include "host/plugin/trusted_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <deque>
#include <vector>

#include "host/base/text.h"
#include "vmmhost/error.h"

namespace vmmhost::plugin {
namespace {

constexpr int kMaxLinks = 40;
constexpr std::size_t kMaxComponents = 512;

class Walk {
 public:
  Walk(const std::string& path, std::string_view what) : path_(path), what_(what) {}

  TrustedFile run() {
    if (path_.empty() || path_[0] != '/' || path_.size() >= PATH_MAX || path_.find('\0') != std::string::npos) {
      throw Error(ErrorCode::kInvalidArgument, subject() + ": the path is not absolute, or too long");
    }
    push(path_);
    if (pending_.empty()) {
      throw Error(ErrorCode::kInvalidArgument, subject() + ": not a regular file");
    }
    enterRoot();
    while (true) {
      const std::string component = std::move(pending_.front());
      pending_.pop_front();
      const bool last = pending_.empty();
      if (component == "..") {
        up(last);
        continue;
      }
      Fd next(::openat(folder_.get(), component.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      struct stat status = {};
      if (!next || ::fstat(next.get(), &status) != 0) {
        throw systemError(subject(), errno);
      }
      const std::string here = where(component);
      checkOwner(here, status);
      if (S_ISLNK(status.st_mode)) {
        follow(next, here, last);
      } else if (last) {
        return open(component, here);
      } else if (S_ISDIR(status.st_mode)) {
        enter(std::move(next), component, status);
      } else {
        throw systemError(subject(), ENOTDIR);
      }
    }
  }

 private:
  std::string subject() const { return std::string(what_) + ' ' + printable(path_, PATH_MAX); }

  std::string where(const std::string& component = {}) const {
    std::string out;
    for (const std::string& part : resolved_) {
      out += '/' + part;
    }
    if (!component.empty()) {
      out += '/' + component;
    }
    return out.empty() ? "/" : out;
  }

  void push(std::string_view path) {
    std::size_t position = path.size();
    // From the back, since what a link says comes before what is left to walk.
    while (position > 0) {
      const std::size_t slash = path.rfind('/', position - 1);
      const std::size_t begin = slash == std::string_view::npos ? 0 : slash + 1;
      const std::string_view part = path.substr(begin, position - begin);
      if (!part.empty() && part != ".") {
        pending_.emplace_front(part);
      }
      position = begin == 0 ? 0 : begin - 1;
    }
    if (pending_.size() > kMaxComponents) {
      throw systemError(subject(), ENAMETOOLONG);
    }
  }

  void enterRoot() {
    Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct stat status = {};
    if (!root || ::fstat(root.get(), &status) != 0) {
      throw systemError("opening /", errno);
    }
    resolved_.clear();
    checkOwner("/", status);
    checkWritable("/", status);
    folder_ = std::move(root);
    folderStatus_ = status;
  }

  void enter(Fd next, const std::string& component, const struct stat& status) {
    resolved_.push_back(component);
    checkWritable(where(), status);
    folder_ = std::move(next);
    folderStatus_ = status;
  }

  void up(bool last) {
    if (last) {
      throw Error(ErrorCode::kInvalidArgument, subject() + ": not a regular file");
    }
    if (resolved_.empty()) {
      return;
    }
    Fd parent(::openat(folder_.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct stat status = {};
    if (!parent || ::fstat(parent.get(), &status) != 0) {
      throw systemError(subject(), errno);
    }
    // Checked on the way down; checked again, because a folder can be moved elsewhere in between.
    resolved_.pop_back();
    checkOwner(where(), status);
    checkWritable(where(), status);
    folder_ = std::move(parent);
    folderStatus_ = status;
  }

  void follow(const Fd& link, const std::string& here, bool last) {
    if (last) {
      throw Error(ErrorCode::kConfinement, subject() + " is not trusted: it is a symbolic link",
                  "put the file itself there");
    }
    std::array<char, PATH_MAX> target;
    const ssize_t length = ::readlinkat(link.get(), "", target.data(), target.size());
    if (length <= 0 || static_cast<std::size_t>(length) == target.size()) {
      throw systemError(subject() + ": reading the link " + here, length < 0 ? errno : ENAMETOOLONG);
    }
    if (++links_ > kMaxLinks) {
      throw systemError(subject(), ELOOP);
    }
    if (target[0] == '/') {
      enterRoot();
    }
    push(std::string_view(target.data(), static_cast<std::size_t>(length)));
    if (pending_.empty()) {
      throw systemError(subject(), ENOENT);
    }
  }

  TrustedFile open(const std::string& component, const std::string& here) {
    if ((folderStatus_.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
      throw Error(ErrorCode::kConfinement, subject() + " is not trusted: others can write its folder " + where(),
                  "put it into a folder that only its owner can write");
    }
    // O_NONBLOCK: what turns out to be a FIFO must not block the open.
    Fd file(::openat(folder_.get(), component.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    TrustedFile result;
    if (!file || ::fstat(file.get(), &result.status) != 0) {
      throw systemError(subject(), errno);
    }
    checkOwner(here, result.status);
    if (!S_ISREG(result.status.st_mode)) {
      throw Error(ErrorCode::kInvalidArgument, subject() + ": not a regular file");
    }
    if ((result.status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
      throw Error(ErrorCode::kConfinement, subject() + " is not trusted: others can write it",
                  "chmod go-w " + printable(here, PATH_MAX));
    }
    result.file = std::move(file);
    result.path = here;
    return result;
  }

  void checkOwner(const std::string& here, const struct stat& status) const {
    if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
      throw Error(ErrorCode::kConfinement,
                  subject() + " is not trusted: " + printable(here, PATH_MAX) + " belongs to user id " +
                      std::to_string(status.st_uid) + ", neither to root nor to the caller (" +
                      std::to_string(::geteuid()) + ")",
                  "chown it to root or to the caller if you trust its content, or remove it");
    }
  }

  void checkWritable(const std::string& here, const struct stat& status) const {
    // In a sticky folder others can add entries, but not replace those that belong to root or the caller.
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (status.st_mode & S_ISVTX) == 0) {
      throw Error(ErrorCode::kConfinement,
                  subject() + " is not trusted: others can write the folder " + printable(here, PATH_MAX),
                  "chmod go-w " + printable(here, PATH_MAX));
    }
  }

  const std::string& path_;
  std::string_view what_;
  std::deque<std::string> pending_;
  std::vector<std::string> resolved_;
  Fd folder_;
  struct stat folderStatus_ = {};
  int links_ = 0;
};

}  // namespace

TrustedFile openTrusted(const std::string& path, std::string_view what) {
  return Walk(path, what).run();
}

}  // namespace vmmhost::plugin
