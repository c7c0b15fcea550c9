#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "vmmhost/rings.h"

#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7)
#endif

namespace vmmhost::rings {

namespace {

static_assert(sizeof(Geometry) == sizeof(io_uring_params));

constexpr std::string_view kPrefix = "rings=";
constexpr char kDigits[] = "0123456789abcdef";

int setUp(io_uring_params& parameters, std::uint32_t flags) noexcept {
  parameters = {};
  parameters.flags = IORING_SETUP_R_DISABLED | flags;
  const long made = ::syscall(SYS_io_uring_setup, kEntries, &parameters);
  return made < 0 ? -errno : static_cast<int>(made);
}

int registerWith(int ring, unsigned operation, void* argument, unsigned count) noexcept {
  return ::syscall(SYS_io_uring_register, ring, operation, argument, count) < 0 ? -errno : 0;
}

int restrict(int ring) noexcept {
  int noFile = -1;
  if (const int error = registerWith(ring, IORING_REGISTER_FILES, &noFile, 1); error != 0) {
    return error;
  }
  io_uring_restriction restrictions[6] = {};
  std::size_t count = 0;
  for (const std::uint8_t operation : {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC}) {
    restrictions[count].opcode = IORING_RESTRICTION_SQE_OP;
    restrictions[count++].sqe_op = operation;
  }
  restrictions[count].opcode = IORING_RESTRICTION_REGISTER_OP;
  restrictions[count++].register_op = IORING_REGISTER_FILES_UPDATE;
  restrictions[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  restrictions[count++].sqe_flags = IOSQE_FIXED_FILE;
  restrictions[count].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
  restrictions[count++].sqe_flags = IOSQE_FIXED_FILE;
  if (const int error = registerWith(ring, IORING_REGISTER_RESTRICTIONS, restrictions, count); error != 0) {
    return error;
  }
  return registerWith(ring, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

int valueOf(char digit) noexcept {
  const std::size_t found = std::string_view(kDigits).find(digit);
  return found == std::string_view::npos ? -1 : static_cast<int>(found);
}

}  // namespace

int make(Geometry& geometry) noexcept {
  io_uring_params parameters;
  // Completions wait for the next system call instead of interrupting the thread, and an operation that the kernel
  // refuses does not end the hand-over of those behind it; kernels before 5.19 cannot do both.
  int ring = setUp(parameters, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL);
  if (ring == -EINVAL) {
    ring = setUp(parameters, 0);
  }
  if (ring < 0) {
    return ring;
  }
  if (const int error = restrict(ring); error != 0) {
    ::close(ring);
    return error;
  }
  std::memcpy(geometry.data(), &parameters, sizeof parameters);
  return ring;
}

Ring make() {
  Ring ring;
  const int made = make(ring.geometry);
  if (made >= 0) {
    ring.descriptor.reset(made);
  }
  return ring;
}

std::array<char, kArgumentBytes + 1> emptyArgument() noexcept {
  std::array<char, kArgumentBytes + 1> argument{};
  writeArgument(argument.data(), 0, {});
  return argument;
}

void writeArgument(char* argument, unsigned count, const Geometry& geometry) noexcept {
  std::memcpy(argument, kPrefix.data(), kPrefix.size());
  char* at = argument + kPrefix.size();
  const auto write = [&at](unsigned byte) {
    *at++ = kDigits[byte >> 4 & 15];
    *at++ = kDigits[byte & 15];
  };
  write(count);
  for (const std::uint8_t byte : geometry) {
    write(byte);
  }
}

unsigned parseArgument(std::string_view argument, Geometry& geometry) noexcept {
  if (argument.size() != kArgumentBytes || !argument.starts_with(kPrefix)) {
    return 0;
  }
  std::array<std::uint8_t, 1 + sizeof(Geometry)> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int high = valueOf(argument[kPrefix.size() + 2 * i]);
    const int low = valueOf(argument[kPrefix.size() + 2 * i + 1]);
    if (high < 0 || low < 0) {
      return 0;
    }
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  if (bytes[0] > kMaxRings) {
    return 0;
  }
  std::memcpy(geometry.data(), bytes.data() + 1, sizeof geometry);
  return bytes[0];
}

std::vector<Ring> takeInherited(std::span<char* const> arguments) {
  std::vector<Ring> rings;
  Geometry geometry{};
  const unsigned count = arguments.empty() ? 0 : parseArgument(arguments.back(), geometry);
  for (unsigned i = 0; i < count; ++i) {
    const int descriptor = kFirstDescriptor + static_cast<int>(i);
    ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    rings.push_back({Fd(descriptor), geometry});
  }
  return rings;
}

}  // namespace vmmhost::rings
