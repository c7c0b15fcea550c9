// Puts a kernel and all that it is told into guest memory.
//
// The kernel's pages are read, in one call for each segment, and not mapped from its file, though that would cost
// nothing until they are touched and VMs would share them: a file that is cut or written while VMs run, as by a copy
// over it, would change or end all of them, by SIGBUS where a device touches such a page. Nothing that this process can
// do makes a file of somebody else's stay as it is. Mapped pages are also 4 KiB to the guest, one exit each, where read
// ones are part of huge pages.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker-kvm/arch/x86_64/entry.h"
#include "worker-kvm/boot/elf.h"
#include "worker-kvm/boot/file.h"
#include "worker-kvm/memory/guest_memory.h"

namespace vmmhost::kvm::boot {

// Which form a file has is seen by its magic numbers: an ELF file (vmlinux) or a bzImage (vmlinuz). An ELF file with a
// PVH note may be entered both ways.
enum class ElfProtocol : std::uint8_t {
  kAuto,     // PVH where there is a note, else Linux's 64-bit protocol
  kLinux64,  // Linux's 64-bit protocol, note or not
};

// What a VM boots. Kept for as long as it may be reset.
struct BootFiles {
  std::unique_ptr<FileSource> kernel;
  std::unique_ptr<FileSource> initrd;  // may be null
  std::string commandLine;
  ElfProtocol elfProtocol = ElfProtocol::kAuto;
};

// What a PC's firmware would have left in memory: made once (acpi::build, smbios::build), written at each load.
struct Firmware {
  std::vector<std::uint8_t> acpi;    // for arch::kAcpiStart, the RSDP first; empty: no ACPI
  std::vector<std::uint8_t> smbios;  // for arch::kSmbiosStart; empty: no SMBIOS
};

// Writes everything to memory and says how to enter it, in three steps, of which only the second one takes long: how
// long is up to the files. What is given stays while it is used.
class Load {
 public:
  // Looks at the files: what of them goes where. `fresh` memory is zero already: what a kernel wants zero is then not
  // touched. Throws Error that names the file and what is wrong.
  Load(const BootFiles& files, const Firmware& firmware, memory::GuestMemory& memory, bool fresh);
  ~Load();
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Reads the files into memory and clears what is to be zero. On any thread; allocates nothing. Ends early, with the
  // work half done, once `isUnwanted`.
  void transfer(const std::atomic<bool>& isUnwanted) noexcept;

  // What is small, after that. Throws Error for what became of the files meanwhile.
  arch::EntryState finish();

 private:
  // A part of a file, and what is wrong if the file has not all of it.
  struct Read {
    const FileSource* file;
    std::uint64_t offset;
    memory::Bytes target;
    std::string tooShort;
  };
  struct Kernel;

  Kernel planKernel();
  void planElf(Kernel& kernel);
  void planBzImage(Kernel& kernel);
  void planSegment(const Segment& segment);
  std::optional<memory::Range> planInitrd(const Kernel& kernel);

  const BootFiles& files_;
  const Firmware& firmware_;
  memory::GuestMemory& memory_;
  const bool fresh_;
  std::vector<Read> reads_;
  std::vector<memory::Bytes> zeros_;
  std::unique_ptr<Kernel> kernel_;
  std::optional<memory::Range> initrd_;
  // Of transfer(): what could not be read, where in the file, and the errno value; 0: the file ends there.
  const Read* failed_ = nullptr;
  std::uint64_t failedAt_ = 0;
  int error_ = 0;
};

// All of it, here and now.
arch::EntryState load(const BootFiles& files, const Firmware& firmware, memory::GuestMemory& memory, bool fresh);

}  // namespace vmmhost::kvm::boot
