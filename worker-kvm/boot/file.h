// The bytes of a file that is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "vmmhost/fd.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// Bytes of a file, wherever they are.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `target` from `offset`; the number of bytes read is smaller only at the end of the file. Throws Error.
  virtual std::size_t read(std::uint64_t offset, memory::Bytes target) const = 0;
};

// A file that the host opened, read by position, so that its offset does not matter.
class FileSource final : public ByteSource {
 public:
  // `name` is for errors, e.g. "boot.kernel".
  FileSource(Fd file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  std::size_t read(std::uint64_t offset, memory::Bytes target) const override;
  // The same for any thread, without exceptions or memory: how much was read, and the errno value of what ended it.
  struct Result {
    std::size_t bytes = 0;
    int error = 0;
  };
  Result tryRead(std::uint64_t offset, memory::Bytes target) const noexcept;
  std::uint64_t bytes() const;  // throws Error if the file has no size
  const std::string& name() const noexcept { return name_; }
  int descriptor() const noexcept { return file_.get(); }

 private:
  Fd file_;
  std::string name_;
};

}  // namespace vmmhost::kvm::boot
