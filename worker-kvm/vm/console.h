// Joins a serial port and the console socket of the host, on the control thread's event loop.
#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include <array>
#include <cstdint>

#include "vmmhost/counters.h"
#include "vmmhost/fd.h"
#include "worker-kvm/devices/serial.h"

namespace vmmhost::kvm::vm {

// Neither side can hold up the other: both directions go through small buffers of fixed size, and nothing here waits.
// Output that the host does not take fills the serial port's buffer, which tells the guest to wait; input that the
// guest does not take stays in the socket. When the host has closed its end, output is discarded.
//
// A guest writes byte by byte. The first one is carried at once; while more come they are fetched every few
// milliseconds, so that not each of them wakes this thread and the host's (as network cards moderate interrupts).
class Console {
 public:
  // `socket` is a non-blocking stream socket, or empty: output is discarded then. All references outlive the console.
  Console(kj::UnixEventPort& port, kj::Timer& timer, Fd socket, devices::Serial& serial,
          counters::WorkerPage& counters);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // Moves what can be moved, both ways. Call when the serial port asks for attention.
  void pump();
  // Fulfilled when the host has taken all output that there is, or has closed its end.
  kj::Promise<void> flushed();

 private:
  kj::Promise<void> watchInput();
  kj::Promise<void> watchOutput();
  void pumpInput();
  bool pumpOutput();  // true: there was some
  kj::Promise<void> moderate();
  void close();

  kj::Timer& timer_;
  Fd socket_;
  devices::Serial& serial_;
  counters::WorkerPage& counters_;
  std::array<std::uint8_t, 1024> output_{};  // taken from the port, not yet by the socket: [outputStart_, outputEnd_)
  std::size_t outputStart_ = 0;
  std::size_t outputEnd_ = 0;
  std::array<std::uint8_t, 512> input_{};
  std::size_t inputStart_ = 0;
  std::size_t inputEnd_ = 0;
  bool writable_ = true;  // the socket, as far as we know
  bool watchingOutput_ = false;
  bool inputOpen_ = true;  // the host may still type
  bool isModerating_ = false;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waitingForFlush_;
  kj::Maybe<kj::UnixEventPort::FdObserver> observer_;
  kj::Promise<void> inputTask_ = nullptr;
  kj::Promise<void> outputTask_ = nullptr;
  kj::Promise<void> moderation_ = nullptr;
};

}  // namespace vmmhost::kvm::vm
