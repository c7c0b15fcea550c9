// Keeps what probes of usable backends said until something that they depend on changes.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>

#include "host/plugin/probe_result.h"
#include "vmmhost/fd.h"

namespace vmmhost::plugin {

// Never an error: where the folder cannot be used, or belongs to somebody else, nothing is kept. Files are replaced
// atomically; one that is damaged counts as missing.
class ProbeCache {
 public:
  // `directory` is made (mode 0700) if it is missing; empty: nothing is kept.
  explicit ProbeCache(const std::string& directory);

  // The result for a plugin file with this resolved path and status. One that was measured also serves who asks for
  // none.
  std::optional<ProbeResult> find(const std::string& name, const std::string& path, const struct stat& status,
                                  bool measure) const;
  // Keeps results of usable backends only: what is missing may be there a moment later.
  void store(const std::string& path, const struct stat& status, bool measured, const ProbeResult& result) const;

 private:
  Fd directory_;
};

}  // namespace vmmhost::plugin
