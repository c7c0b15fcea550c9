// The PVH boot protocol: kernel, initrd, command line and hvm_start_info in guest memory.
// Source: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "worker-kvm/boot/elf.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// One entry of the memory map that the guest sees.
struct MapEntry {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  bool usable = false;
};
// `ranges` as of arch::memoryRanges: usable but for the PC's hole below 1 MiB.
std::vector<MapEntry> memoryMap(std::vector<memory::Range> ranges);

// A file that the host opened, read by position, so that its offset does not matter.
class FileSource final : public ByteSource {
 public:
  // `name` is for errors, e.g. "kernel".
  FileSource(Fd file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  std::size_t read(std::uint64_t offset, memory::Bytes target) const override;
  std::uint64_t bytes() const;  // throws Error if the file has no size

 private:
  Fd file_;
  std::string name_;
};

// What a VM boots. Kept for as long as it may be reset.
struct BootFiles {
  std::unique_ptr<FileSource> kernel;
  std::unique_ptr<FileSource> initrd;  // may be null
  std::string commandLine;
};

// Writes everything to memory and returns the entry point. `fresh` memory is zero already: what a kernel wants zero
// is then not touched. Throws Error that names the file and what is wrong.
std::uint32_t load(const BootFiles& files, memory::GuestMemory& memory, bool fresh);

}  // namespace vmmhost::kvm::boot
