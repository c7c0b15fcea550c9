// Counters of a worker in a sealed shared-memory page: the worker counts, the host reads without asking.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmmhost/fd.h"

namespace vmmhost::counters {

// The fixed layout: one page of 64-bit cells, each with a meaning that never changes. A cell that a backend does not
// count stays 0.
enum class Cell : std::uint32_t {
  kVcpuExits = 0,
  kPioExits,
  kMmioExits,
  kHaltExits,
  kConsoleBytesOut,
  kConsoleBytesIn,
  kUnknownPortReads,
  kUnknownPortWrites,
  kUnknownMmio,
  kPauses,
  kResets,
  kLogRecordsDropped,
  kCount
};
inline constexpr std::size_t kPageBytes = 4096;

// The name in JSON and in `inspect`, e.g. "vcpuExits".
std::string_view cellName(Cell cell) noexcept;

// The host's side: makes the memfd (sealed against shrinking, growing and further seals; not executable), maps it
// read-only. Whatever the worker writes there, reading is safe: each cell is one atomic load.
class HostPage {
 public:
  HostPage();  // throws Error
  ~HostPage();
  HostPage(const HostPage&) = delete;
  HostPage& operator=(const HostPage&) = delete;

  // For the worker; stays owned by the page.
  int descriptor() const noexcept;
  std::uint64_t read(Cell cell) const noexcept;
  // The cells that are not 0, with their names.
  std::vector<std::pair<std::string_view, std::uint64_t>> readAll() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The worker's side. add() is one relaxed atomic addition: any thread, no system call.
class WorkerPage {
 public:
  WorkerPage();                   // counts into private memory: for workers that were given no page
  explicit WorkerPage(Fd memfd);  // throws Error
  ~WorkerPage();
  WorkerPage(const WorkerPage&) = delete;
  WorkerPage& operator=(const WorkerPage&) = delete;

  void add(Cell cell, std::uint64_t amount = 1) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmmhost::counters
