// The file or block device behind a disk: what it is, found out once, and operations on it that block.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

#include "vmmhost/fd.h"
#include "worker-kvm/confine/rules.h"

namespace vmmhost::kvm::virtio::block {

class DiskFile {
 public:
  // Looks at the file: while the process is created only. `descriptor`: opened for reading, and for writing unless
  // readOnly. Throws Error that begins with `name`.
  DiskFile(std::string name, Fd descriptor, bool readOnly);

  const std::string& name() const noexcept { return name_; }
  int descriptor() const noexcept { return descriptor_.get(); }
  std::uint64_t bytes() const noexcept { return bytes_; }  // whole blocks
  bool isReadOnly() const noexcept { return readOnly_; }
  // Opened with O_DIRECT: offsets and lengths are multiples of blockBytes(), addresses of memoryAlignment().
  bool isDirect() const noexcept { return direct_; }
  std::uint32_t blockBytes() const noexcept { return blockBytes_; }  // 512 if any will do
  std::uint32_t memoryAlignment() const noexcept { return memoryAlignment_; }
  // What its file system likes best: a power of 2, at least blockBytes().
  std::uint32_t preferredBytes() const noexcept { return preferredBytes_; }
  // Whether parts of it can be given back to the file system.
  bool canPunch() const noexcept { return canPunch_; }

  // Whether the file takes a transfer as it is.
  bool isAligned(std::span<const iovec> segments, std::uint64_t offset, std::uint64_t bytes) const noexcept;

  // System calls, carried out now: bytes, or a negative errno value. Any thread whose filter has rules().
  std::int64_t read(std::span<const iovec> segments, std::uint64_t offset) const noexcept;
  // durable: the data is on the disk when it returns.
  std::int64_t write(std::span<const iovec> segments, std::uint64_t offset, bool durable) const noexcept;
  std::int64_t syncData() const noexcept;
  // Makes it zeroes without changing the file's size, giving it back to the file system.
  std::int64_t punch(std::uint64_t offset, std::uint64_t bytes) const noexcept;

  confine::Rules transferRules() const;    // for read, write, syncData
  confine::Rules allocationRules() const;  // for punch

 private:
  void findAlignment();
  bool readsAt(std::uint32_t block, std::uint32_t alignment) const;

  std::string name_;
  Fd descriptor_;
  bool readOnly_;
  bool direct_ = false;
  bool canPunch_ = false;
  std::uint64_t bytes_ = 0;
  std::uint32_t blockBytes_ = 512;
  std::uint32_t memoryAlignment_ = 1;
  std::uint32_t preferredBytes_ = 512;
};

}  // namespace vmmhost::kvm::virtio::block
