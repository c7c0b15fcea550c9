#include "host/vm/resources.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "host/vm/test_image.h"

namespace vmmhost::vm {
namespace {

class ResourcesTest : public ::testing::Test {
 protected:
  ResourcesTest() {
    std::string name = ::testing::TempDir() + "vmmhost-resources-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    file("disk", std::string(1024, 'd'));
  }
  ~ResourcesTest() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + '/' + name; }
  void file(const std::string& name, const std::string& content) const { std::ofstream(path(name)) << content; }

  struct DiskName {
    const char* file;
    bool readOnly = false;
    schema::Disk::Format format = schema::Disk::Format::RAW;
  };
  // Where there is udev, it locks a device for a moment after somebody wrote to it.
  OpenedResources open(std::initializer_list<DiskName> names) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (true) {
      try {
        return openOnce(names);
      } catch (const Error& error) {
        const bool isOfAnother = error.message().find("locked it: process") != std::string::npos &&
                                 error.message().find(' ' + std::to_string(::getpid()) + " (") == std::string::npos;
        if (!isOfAnother || std::chrono::steady_clock::now() > end) {
          throw;
        }
      }
      std::this_thread::yield();
    }
  }
  OpenedResources openOnce(std::initializer_list<DiskName> names) const {
    capnp::MallocMessageBuilder message;
    auto disks = message.initRoot<schema::VmConfig>().initDisks(static_cast<unsigned>(names.size()));
    unsigned index = 0;
    for (const DiskName& name : names) {
      disks[index].initFile().setPath(name.file);
      disks[index].setFormat(name.format);
      disks[index++].setReadOnly(name.readOnly);
    }
    return openResources(message.getRoot<schema::VmConfig>(), folder_);
  }
  // Its message, which begins with its field.
  std::string refusal(std::initializer_list<DiskName> names) const {
    try {
      open(names);
    } catch (const Error& error) {
      EXPECT_NE(error.field(), "") << error.message();
      EXPECT_EQ(error.message().find(error.field() + ": "), 0u) << error.field();
      return error.message();
    }
    return "was not refused";
  }

  std::string folder_;
};

TEST_F(ResourcesTest, disk_isNonBlockingWhereItsFileIsInMemoryOnly) {
  struct statfs system {};
  ASSERT_EQ(::statfs(folder_.c_str(), &system), 0);
  if (system.f_type == TMPFS_MAGIC || ::statfs("/dev/shm", &system) != 0 || system.f_type != TMPFS_MAGIC) {
    GTEST_SKIP() << "this takes a folder on a disk and one in memory";
  }
  EXPECT_EQ(::fcntl(open({{"disk"}}).files.at(0).fd.get(), F_GETFL) & O_NONBLOCK, 0);
  std::string name = "/dev/shm/vmmhost-resources-XXXXXX";
  const Fd file(::mkstemp(name.data()));
  ASSERT_EQ(::ftruncate(file.get(), 512), 0);
  EXPECT_NE(::fcntl(open({{name.c_str()}}).files.at(0).fd.get(), F_GETFL) & O_NONBLOCK, 0);
  ::unlink(name.c_str());
}

TEST_F(ResourcesTest, oneFileAsTwoDisks_isRefusedUnlessBothOnlyReadIt) {
  ASSERT_EQ(::link(path("disk").c_str(), path("other name").c_str()), 0);
  EXPECT_EQ(refusal({{"disk"}, {"disk"}}), "disks[1]: disk is the same file as disks[0]");
  EXPECT_EQ(refusal({{"disk"}, {"other name", true}}), "disks[1]: other name is the same file as disks[0]");
  EXPECT_EQ(refusal({{"disk", true}, {"other name"}}), "disks[1]: other name is the same file as disks[0]");
  EXPECT_EQ(open({{"disk", true}, {"other name", true}}).files.size(), 2u);
}

// Whoever may read a base image can keep its owner from writing it, so the refusal says who does.
TEST_F(ResourcesTest, diskInUse_isRefusedWhileOneOfBothWrites_andTheHolderNamed) {
  std::string name;
  std::getline(std::ifstream("/proc/self/comm"), name);
  const std::string kInUse = "disks[0]: disk is in use by another VM, or by a program that locked it: process " +
                             std::to_string(::getpid()) + " (" + name + ")";
  {
    const OpenedResources holder = open({{"disk"}});
    EXPECT_EQ(refusal({{"disk"}}), kInUse);
    EXPECT_EQ(refusal({{"disk", true}}), kInUse);
    // While the other VM's worker makes it longer nobody is told to change its length.
    for (const std::uintmax_t bytes : {1025, 0, 1024}) {
      std::filesystem::resize_file(path("disk"), bytes);
      EXPECT_EQ(refusal({{"disk"}}), kInUse) << bytes;
    }
  }
  const OpenedResources reader = open({{"disk", true}});
  EXPECT_EQ(refusal({{"disk"}}), kInUse);
  EXPECT_EQ(open({{"disk", true}}).files.size(), 1u);
}

// One rule for all backends, which would round for themselves.
TEST_F(ResourcesTest, rawDiskWithoutWholeSectors_isRefused_andAsLongAsBefore) {
  for (const std::uintmax_t bytes : {1, 511, 513, 1048577}) {
    std::filesystem::resize_file(path("disk"), bytes);
    const std::string expected =
        "disks[0]: disk is " + std::to_string(bytes) + " bytes long, which is not a multiple of 512";
    EXPECT_EQ(refusal({{"disk"}}), expected);
    EXPECT_EQ(refusal({{"disk", true}}), expected);
    EXPECT_EQ(std::filesystem::file_size(path("disk")), bytes);
  }
  std::filesystem::resize_file(path("disk"), (300 << 20) + 512);
  EXPECT_EQ(open({{"disk"}}).files.size(), 1u);
  file("image", TestImage().header() + "x");
  EXPECT_EQ(open({{"image", false, schema::Disk::Format::QCOW2}}).files.size(), 1u)
      << "an image has sectors of its own";
}

TEST_F(ResourcesTest, writableDisks_havePlans_andOthersHaveNone) {
  std::filesystem::resize_file(path("disk"), 3 << 20);
  file("other", std::string(512, 'o'));
  EXPECT_EQ(open({{"disk", true}}).diskPlans.largest(), 0u);
  EXPECT_EQ(open({{"other"}, {"disk", true}}).diskPlans.largest(), 512u);
  EXPECT_EQ(open({{"other"}, {"disk"}}).diskPlans.largest(), 3u << 20);
  TestImage image;
  file("image", image.header());
  EXPECT_GT(open({{"image", false, schema::Disk::Format::QCOW2}, {"disk"}}).diskPlans.largest(), image.virtualBytes);
  EXPECT_EQ(refusal({{"other"}, {"disk", false, schema::Disk::Format::QCOW2}}),
            "disks[1].format: disk: the file is not a qcow2 image");
}

// A loop device over a file, where this system offers one.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file) {
    const Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const Fd backing(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    // What was free a moment before may be somebody else's by now: then another one is asked for.
    for (int attempt = 0; control && !isThere_ && attempt < 100; ++attempt) {
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      if (number < 0) {
        break;
      }
      name_ = "/dev/loop" + std::to_string(number);
      device_.reset(::open(name_.c_str(), O_RDWR | O_CLOEXEC));
      isThere_ = device_ && ::ioctl(device_.get(), LOOP_SET_FD, backing.get()) == 0;
      if (!isThere_ && errno != EBUSY) {
        break;
      }
    }
  }
  ~LoopDevice() {
    if (isThere_) {
      ::ioctl(device_.get(), LOOP_CLR_FD);
    }
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  bool isThere() const { return isThere_; }
  const std::string& name() const { return name_; }

 private:
  Fd device_;
  bool isThere_ = false;
  std::string name_;
};

TEST_F(ResourcesTest, blockDevice_isOpenedForThisVmAlone) {
  std::filesystem::resize_file(path("disk"), 1 << 20);
  const LoopDevice device(path("disk"));
  if (!device.isThere()) {
    GTEST_SKIP() << "this takes a loop device";
  }
  const auto openAlone = [&] { return Fd(::open(device.name().c_str(), O_RDWR | O_EXCL | O_CLOEXEC)); };
  const std::string used =
      "disks[0]: " + device.name() + " is in use: something of it is mounted, or it is part of another device";
  {
    const Fd watch(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    ASSERT_GE(::inotify_add_watch(watch.get(), device.name().c_str(), IN_CLOSE_WRITE), 0);
    const OpenedResources opened = open({{device.name().c_str()}});
    char event = 0;
    EXPECT_EQ(::read(watch.get(), &event, 1), -1) << "it is opened for writing once: a close wakes udev";
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_FALSE(openAlone()) << "as mkfs and mount try it";
    EXPECT_EQ(opened.diskPlans.largest(), 0u) << "it cannot become longer";
  }
  const Fd other = openAlone();
  ASSERT_TRUE(other);
  EXPECT_EQ(refusal({{device.name().c_str()}}), used);
  EXPECT_EQ(open({{device.name().c_str(), true}}).files.size(), 1u) << "who only reads asks for nothing";
}

TEST_F(ResourcesTest, blockDeviceWithTwoNames_isOneDisk) {
  std::filesystem::resize_file(path("disk"), 1 << 20);
  const LoopDevice device(path("disk"));
  struct stat info {};
  if (!device.isThere() || ::stat(device.name().c_str(), &info) != 0 ||
      ::mknod(path("node").c_str(), S_IFBLK | 0600, info.st_rdev) != 0 ||
      !Fd(::open(path("node").c_str(), O_RDONLY | O_CLOEXEC))) {
    GTEST_SKIP() << "this takes a loop device, and a file system with devices";
  }
  EXPECT_EQ(refusal({{device.name().c_str()}, {"node"}}), "disks[1]: node is the same file as disks[0]");
}

TEST_F(ResourcesTest, whatIsNoDisk_isNamed) {
  file("empty", "");
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path("socket").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ::close(socket);
  EXPECT_EQ(refusal({{"empty"}}), "disks[0]: empty is empty");
  EXPECT_EQ(refusal({{"fifo"}}), "disks[0]: fifo is a FIFO");
  EXPECT_EQ(refusal({{"socket"}}), "disks[0]: socket is a socket, or a device that is not there");
  EXPECT_EQ(refusal({{"."}}), "disks[0]: . is a folder");
  EXPECT_EQ(refusal({{"disk"}, {"missing\x1b"}}), "disks[1]: missing\\x1b: No such file or directory");
}

TEST(NameFile, errorsOfAWorker_tellThePath) {
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.initBoot().initKernel().setPath("/k\n");
  config.initDisks(11)[1].initFile().setPath("one");
  config.getDisks()[10].initFile().setPath("ten");
  struct Case {
    const char* field;
    const char* message;
    const char* named;
    const char* fieldThen;
  };
  const Case cases[] = {
      {"boot.kernel", "boot.kernel: not an ELF file", "boot.kernel: /k\\n: not an ELF file", "boot.kernel"},
      {"boot.kernel", "boot.kernel at 0x1000 is outside", "boot.kernel: /k\\n at 0x1000 is outside", "boot.kernel"},
      {"boot.kernel", "boot.kernel", "boot.kernel: /k\\n", "boot.kernel"},
      {"boot.kernel", "boot.kernels: no", "boot.kernel: /k\\n: boot.kernels: no", "boot.kernel"},
      {"disks[1].format", "the file is not", "disks[1].format: one: the file is not", "disks[1].format"},
      {"disks[10]", "disks[1]: no", "disks[10]: ten: disks[1]: no", "disks[10]"},
      {"memory.size", "boot.kernel: needs more", "boot.kernel: needs more", "memory.size"},
      {"boot.initrd", "boot.initrd: no", "boot.initrd: no", "boot.initrd"},
      // Of workers that say no field.
      {"", "boot.kernel: not an ELF file", "boot.kernel: /k\\n: not an ELF file", "boot.kernel"},
      {"", "disks[1].format: the file is not", "disks[1].format: one: the file is not", "disks[1].format"},
      {"", "disks[10]: no", "disks[10]: ten: no", "disks[10]"},
      {"", "boot.kernels: no", "boot.kernels: no", ""},
      {"", "boot.initrd: no", "boot.initrd: no", ""},
      {"", "no", "no", ""},
  };
  for (const Case& one : cases) {
    const Error error = Error(ErrorCode::kUnsupported, one.message, "a hint", true).withField(one.field);
    const Error named = nameFile(error, config.asReader());
    EXPECT_EQ(named.message(), one.named) << one.field;
    EXPECT_EQ(named.field(), one.fieldThen) << one.message;
    EXPECT_EQ(named.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(named.hint(), "a hint");
    EXPECT_TRUE(named.retryable());
  }
}

}  // namespace
}  // namespace vmmhost::vm
