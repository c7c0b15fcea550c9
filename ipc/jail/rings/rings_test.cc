#include "vmmhost/rings.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

namespace vmmhost::rings {
namespace {

// The least that carries one operation out, from the geometry alone: what a worker has.
class MappedRing {
 public:
  explicit MappedRing(const Ring& ring) : descriptor_(ring.descriptor.get()) {
    std::memcpy(&parameters_, ring.geometry.data(), sizeof parameters_);
    const std::size_t submission = parameters_.sq_off.array + parameters_.sq_entries * sizeof(std::uint32_t);
    const std::size_t completion = parameters_.cq_off.cqes + parameters_.cq_entries * sizeof(io_uring_cqe);
    queue_ = map(std::max(submission, completion), IORING_OFF_SQ_RING);
    entries_ = map(parameters_.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
  }
  ~MappedRing() {
    ::munmap(queue_.data, queue_.bytes);
    ::munmap(entries_.data, entries_.bytes);
  }
  MappedRing(const MappedRing&) = delete;
  MappedRing& operator=(const MappedRing&) = delete;

  // The result of the operation as its completion tells it.
  int carryOut(const io_uring_sqe& operation) {
    std::memcpy(entries_.data, &operation, sizeof operation);
    word(parameters_.sq_off.array) = 0;
    __atomic_store_n(&word(parameters_.sq_off.tail), ++tail_, __ATOMIC_RELEASE);
    if (::syscall(SYS_io_uring_enter, descriptor_, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) < 0) {
      return -errno;
    }
    const std::uint32_t head = word(parameters_.cq_off.head);
    io_uring_cqe completion;
    std::memcpy(&completion,
                queue_.data + parameters_.cq_off.cqes + (head & (parameters_.cq_entries - 1)) * sizeof completion,
                sizeof completion);
    __atomic_store_n(&word(parameters_.cq_off.head), head + 1, __ATOMIC_RELEASE);
    return completion.res;
  }

  int registerWith(unsigned operation, void* argument, unsigned count) const {
    return ::syscall(SYS_io_uring_register, descriptor_, operation, argument, count) < 0 ? errno : 0;
  }
  int registerFile(int file) const {
    io_uring_files_update update{};
    update.fds = reinterpret_cast<std::uint64_t>(&file);
    return registerWith(IORING_REGISTER_FILES_UPDATE, &update, 1);
  }

 private:
  struct Mapping {
    char* data = nullptr;
    std::size_t bytes = 0;
  };
  Mapping map(std::size_t bytes, std::uint64_t offset) const {
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor_,
                        static_cast<off_t>(offset));
    EXPECT_NE(data, MAP_FAILED) << errno;
    return {static_cast<char*>(data), bytes};
  }
  std::uint32_t& word(std::uint32_t offset) { return *reinterpret_cast<std::uint32_t*>(queue_.data + offset); }

  int descriptor_;
  io_uring_params parameters_{};
  Mapping queue_;
  Mapping entries_;
  std::uint32_t tail_ = 0;
};

class RingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ring_ = make();
    if (!ring_.descriptor) {
      GTEST_SKIP() << "this system offers no io_uring";
    }
    mapped_ = std::make_unique<MappedRing>(ring_);
    file_.reset(::memfd_create("ring", MFD_CLOEXEC));
    ASSERT_EQ(::pwrite(file_.get(), "content", 7, 0), 7);
  }
  io_uring_sqe operation(std::uint8_t number, const iovec* segment = nullptr) const {
    io_uring_sqe operation{};
    operation.opcode = number;
    operation.flags = IOSQE_FIXED_FILE;
    operation.addr = reinterpret_cast<std::uint64_t>(segment);
    operation.len = segment == nullptr ? 0 : 1;
    return operation;
  }

  Ring ring_;
  std::unique_ptr<MappedRing> mapped_;
  Fd file_;
};

TEST_F(RingTest, registeredFile_isReadWrittenAndSynced) {
  ASSERT_EQ(mapped_->registerFile(file_.get()), 0);
  char text[8] = {};
  iovec segment{text, 7};
  EXPECT_EQ(mapped_->carryOut(operation(IORING_OP_READV, &segment)), 7);
  EXPECT_STREQ(text, "content");
  std::strcpy(text, "CONTENT");
  EXPECT_EQ(mapped_->carryOut(operation(IORING_OP_WRITEV, &segment)), 7);
  EXPECT_EQ(mapped_->carryOut(operation(IORING_OP_FSYNC)), 0);
  char now[8] = {};
  EXPECT_EQ(::pread(file_.get(), now, 7, 0), 7);
  EXPECT_STREQ(now, "CONTENT");
}

TEST_F(RingTest, otherOperations_areRefused) {
  ASSERT_EQ(mapped_->registerFile(file_.get()), 0);
  for (int number = 0; number < 64; ++number) {
    if (number != IORING_OP_READV && number != IORING_OP_WRITEV && number != IORING_OP_FSYNC) {
      const int result = mapped_->carryOut(operation(static_cast<std::uint8_t>(number)));
      // A number that the kernel does not know is invalid to it.
      EXPECT_TRUE(result == -EACCES || (number >= IORING_OP_LAST && result == -EINVAL)) << number << ": " << result;
    }
  }
}

TEST_F(RingTest, filesThatAreNotRegistered_areRefused) {
  char text[8] = {};
  iovec segment{text, 7};
  io_uring_sqe read = operation(IORING_OP_READV, &segment);
  EXPECT_EQ(mapped_->carryOut(read), -EBADF);  // nothing is
  read.flags = 0;
  read.fd = file_.get();
  EXPECT_EQ(mapped_->carryOut(read), -EACCES);
  for (const unsigned flag : {IOSQE_IO_LINK, IOSQE_IO_HARDLINK, IOSQE_ASYNC}) {
    read = operation(IORING_OP_READV, &segment);
    read.flags = static_cast<std::uint8_t>(IOSQE_FIXED_FILE | flag);
    EXPECT_EQ(mapped_->carryOut(read), -EACCES) << flag;
  }
}

TEST_F(RingTest, restrictions_cannotBeTakenBack) {
  io_uring_restriction everything{};
  everything.opcode = IORING_RESTRICTION_SQE_OP;
  everything.sqe_op = IORING_OP_OPENAT;
  EXPECT_EQ(mapped_->registerWith(IORING_REGISTER_RESTRICTIONS, &everything, 1), EACCES);
  int files[2] = {0, 0};
  EXPECT_EQ(mapped_->registerWith(IORING_REGISTER_FILES, files, 2), EACCES);
  EXPECT_EQ(mapped_->registerWith(IORING_UNREGISTER_FILES, nullptr, 0), EACCES);
  EXPECT_EQ(mapped_->registerWith(IORING_REGISTER_EVENTFD, files, 1), EACCES);
  EXPECT_EQ(mapped_->registerWith(IORING_REGISTER_PERSONALITY, nullptr, 0), EACCES);
  io_uring_files_update beyond{};
  beyond.offset = 1;
  beyond.fds = reinterpret_cast<std::uint64_t>(files);
  EXPECT_EQ(mapped_->registerWith(IORING_REGISTER_FILES_UPDATE, &beyond, 1), EINVAL);
}

TEST(RingArgument, whatWasWritten_isParsed) {
  Geometry geometry{};
  for (std::size_t i = 0; i < geometry.size(); ++i) {
    geometry[i] = static_cast<std::uint8_t>(i * 37);
  }
  auto argument = emptyArgument();
  Geometry parsed{};
  EXPECT_EQ(parseArgument(argument.data(), parsed), 0u);
  writeArgument(argument.data(), 17, geometry);
  EXPECT_EQ(parseArgument(argument.data(), parsed), 17u);
  EXPECT_EQ(parsed, geometry);
  EXPECT_EQ(std::string(argument.data()).size(), kArgumentBytes);
}

TEST(RingArgument, anythingElse_tellsOfNone) {
  auto argument = emptyArgument();
  writeArgument(argument.data(), kMaxRings + 1, {});
  Geometry parsed{};
  EXPECT_EQ(parseArgument(argument.data(), parsed), 0u) << "more than there can be";
  writeArgument(argument.data(), 1, {});
  EXPECT_EQ(parseArgument(std::string(argument.data()) + "0", parsed), 0u);
  EXPECT_EQ(parseArgument(std::string(argument.data()).substr(1), parsed), 0u);
  argument[20] = 'g';
  EXPECT_EQ(parseArgument(argument.data(), parsed), 0u);
  EXPECT_EQ(parseArgument("", parsed), 0u);
  EXPECT_TRUE(takeInherited({}).empty());
}

}  // namespace
}  // namespace vmmhost::rings
