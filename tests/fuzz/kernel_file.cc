// Files that boot, from anybody: the ELF loader of worker-kvm, and what worker-qemu looks at before QEMU does.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "tests/fuzz/fuzz.h"
#include "worker-kvm/boot/pvh.h"
#include "worker/image_check.h"
#include "worker/kernel_check.h"

using namespace vmmhost;

namespace {

constexpr std::uint64_t kQemuMemory = std::uint64_t{64} << 20;

class BytesSource final : public kvm::boot::ByteSource {
 public:
  explicit BytesSource(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::size_t read(std::uint64_t offset, kvm::memory::Bytes target) const override {
    if (offset >= bytes_.size()) {
      return 0;
    }
    const auto part = bytes_.subspan(offset, std::min<std::uint64_t>(target.size(), bytes_.size() - offset));
    std::copy(part.begin(), part.end(), target.begin());
    return part.size();
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

Fd fileOf(std::span<const std::uint8_t> bytes) {
  Fd file(::memfd_create("kernel", MFD_CLOEXEC));
  fuzz::require(file && ::write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
                "a file can be made");
  return file;
}

void load(std::span<const std::uint8_t> bytes) {
  static const kvm::memory::Range kRanges[] = {{0, 0xa0000}, {0x100000, 0x400000}};
  kvm::boot::BootFiles files;
  files.kernel = std::make_unique<kvm::boot::FileSource>(fileOf(bytes), "kernel");
  files.commandLine = "console=ttyS0";
  kvm::memory::GuestMemory memory(kRanges, false);
  fuzz::accepted([&] { kvm::boot::load(files, memory, true); });
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  fuzz::accepted([&] {
    const Fd file = fileOf({data, size});
    qemubackend::checkInitrd(file, kQemuMemory, qemubackend::checkKernel(file, kQemuMemory));
  });
  fuzz::accepted([&] { qemubackend::checkQcow2Header("disks[0]", bytes); });
  kvm::boot::findPvhEntry({data, size}, size % 2 == 0 ? 4 : 8);
  if (fuzz::accepted([&] {
        const kvm::boot::KernelImage image = kvm::boot::parseElf(BytesSource({data, size}));
        fuzz::require(std::any_of(image.segments.begin(), image.segments.end(),
                                  [&](const kvm::boot::Segment& segment) {
                                    return image.entry >= segment.memory.start && image.entry < segment.memory.end();
                                  }),
                      "the entry is inside a segment");
      })) {
    load({data, size});
  }
  return 0;
}
