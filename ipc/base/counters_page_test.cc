#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <set>
#include <thread>

#include "vmmhost/counters.h"
#include "vmmhost/error.h"

namespace vmmhost::counters {
namespace {

Fd passedOn(const HostPage& page) {
  return Fd(::fcntl(page.descriptor(), F_DUPFD_CLOEXEC, 0));
}

TEST(Counters, whatTheWorkerCounts_theHostReads) {
  HostPage host;
  EXPECT_TRUE(host.readAll().empty());
  WorkerPage worker(passedOn(host));
  worker.add(Cell::kVcpuExits);
  worker.add(Cell::kVcpuExits, 41);
  worker.add(Cell::kLogRecordsDropped);
  EXPECT_EQ(host.read(Cell::kVcpuExits), 42u);
  EXPECT_EQ(worker.read(Cell::kVcpuExits), 42u);
  const std::vector<std::pair<std::string_view, std::uint64_t>> expected = {{"vcpuExits", 42},
                                                                            {"logRecordsDropped", 1}};
  EXPECT_EQ(host.readAll(), expected);
}

TEST(Counters, everyCell_hasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(Cell::kCount); ++i) {
    EXPECT_FALSE(cellName(static_cast<Cell>(i)).empty());
    names.insert(cellName(static_cast<Cell>(i)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Cell::kCount));
}

TEST(Counters, cellsThatDoNotExist_areIgnored) {
  HostPage host;
  WorkerPage worker(passedOn(host));
  worker.add(static_cast<Cell>(100000));
  worker.add(Cell::kCount);
  EXPECT_EQ(host.read(static_cast<Cell>(100000)), 0u);
  EXPECT_TRUE(host.readAll().empty());
}

TEST(Counters, page_cannotBeResizedUnsealedOrMadeExecutable) {
  HostPage host;
  const Fd worker = passedOn(host);
  EXPECT_EQ(::ftruncate(worker.get(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  errno = 0;
  EXPECT_EQ(::ftruncate(worker.get(), 1 << 20), -1);
  EXPECT_EQ(errno, EPERM);
  errno = 0;
  EXPECT_EQ(::pwrite(worker.get(), "", 1, kPageBytes), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::fcntl(worker.get(), F_ADD_SEALS, F_SEAL_WRITE), -1);
  EXPECT_EQ(errno, EPERM);
  struct stat status {};
  ASSERT_EQ(::fstat(worker.get(), &status), 0);
  EXPECT_EQ(status.st_mode & 0111, 0u);
  EXPECT_EQ(status.st_size, static_cast<off_t>(kPageBytes));
}

TEST(Counters, holesPunchedByTheWorker_readAsZero) {
  HostPage host;
  WorkerPage(passedOn(host)).add(Cell::kResets, 5);
  ASSERT_EQ(::fallocate(host.descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPageBytes), 0);
  EXPECT_TRUE(host.readAll().empty());
}

TEST(Counters, randomBytesInThePage_leaveTheHostReading) {
  HostPage host;
  std::mt19937_64 random(7);
  void* page = ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, host.descriptor(), 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* words = static_cast<std::uint64_t*>(page);
  for (int round = 0; round < 200; ++round) {
    for (std::size_t i = 0; i < kPageBytes / 8; ++i) {
      words[i] = random();
    }
    EXPECT_LE(host.readAll().size(), static_cast<std::size_t>(Cell::kCount));
    EXPECT_EQ(host.read(Cell::kPioExits), words[1]);
  }
  ::munmap(page, kPageBytes);
}

TEST(Counters, threadsAndProcesses_loseNoCount) {
  constexpr int kAdds = 20000;
  HostPage host;
  const pid_t child = ::fork();
  if (child == 0) {
    WorkerPage worker(Fd(::fcntl(host.descriptor(), F_DUPFD_CLOEXEC, 0)));
    for (int i = 0; i < kAdds; ++i) {
      worker.add(Cell::kMmioExits);
    }
    ::_exit(0);
  }
  WorkerPage worker(passedOn(host));
  const auto count = [&worker] {
    for (int i = 0; i < kAdds; ++i) {
      worker.add(Cell::kMmioExits);
    }
  };
  std::thread first(count);
  std::thread second(count);
  first.join();
  second.join();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(host.read(Cell::kMmioExits), 3u * kAdds);
}

TEST(Counters, workerWithoutPage_countsIntoItsOwnMemory) {
  WorkerPage worker;
  const WorkerPage other;
  worker.add(Cell::kPauses, 3);
  worker.add(Cell::kPauses);
  worker.add(Cell::kCount, 3);
  EXPECT_EQ(worker.read(Cell::kPauses), 4u);
  EXPECT_EQ(worker.read(Cell::kResets), 0u);
  EXPECT_EQ(worker.read(Cell::kCount), 0u);
  EXPECT_EQ(other.read(Cell::kPauses), 0u);
}

TEST(Counters, descriptorOfAnotherSize_isRefusedAndClosed) {
  const int fd = ::memfd_create("other", MFD_CLOEXEC);
  try {
    WorkerPage worker{Fd(fd)};
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(::fcntl(fd, F_GETFD), -1);
}

TEST(Counters, hostMapping_isReadOnly) {
  // Found in its own map list: a bug in the host must not be able to feed the worker.
  HostPage host;
  std::FILE* maps = std::fopen("/proc/self/maps", "re");
  ASSERT_NE(maps, nullptr);
  char line[512];
  int found = 0;
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    const std::string text = line;
    if (text.find("vmmhost-counters") != std::string::npos) {
      ++found;
      EXPECT_NE(text.find(" r--s "), std::string::npos) << text;
    }
  }
  std::fclose(maps);
  EXPECT_EQ(found, 1);
}

}  // namespace
}  // namespace vmmhost::counters
