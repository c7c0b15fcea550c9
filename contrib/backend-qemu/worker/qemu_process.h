// One QEMU process: started with exactly the descriptors that it needs, ended and reaped by its owner.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "vmmhost/fd.h"
#include "worker/outcome.h"

namespace qemubackend {

class QemuProcess final {
 public:
  // Descriptor numbers that the new process finds its files at: kFirstDescriptor + index in `descriptors`. 0 is
  // /dev/null, 1 and 2 are a pipe.
  static constexpr int kFirstDescriptor = 3;

  // Starts `program` with argv[0] = its name, an empty environment, and `descriptors`. Every other descriptor of this
  // process must be close-on-exec. Throws vmmhost::Error; a program that cannot be executed ends with code 127 and says
  // so on its standard error.
  QemuProcess(const std::string& program, const std::vector<std::string>& arguments,
              const std::vector<int>& descriptors);
  ~QemuProcess();  // kills and reaps
  QemuProcess(const QemuProcess&) = delete;
  QemuProcess& operator=(const QemuProcess&) = delete;

  // The reading end of its standard output and error, non-blocking; can be taken once.
  vmmhost::Fd takeOutput() { return std::move(output_); }

  void kill() noexcept;
  // Kills what is not ending already and reaps it: returns as soon as the kernel has torn the process down.
  ProcessEnd killAndReap() noexcept;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  vmmhost::Fd output_;
};

}  // namespace qemubackend
