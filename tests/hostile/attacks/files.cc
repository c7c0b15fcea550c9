// Reaching files by name.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cstdint>

#include "tests/hostile/attack.h"
#include "tests/hostile/attacks/raw.h"

namespace vmmhost::hostile {
namespace {

struct OpenHow {
  std::uint64_t flags = O_RDONLY;
  std::uint64_t mode = 0;
  std::uint64_t resolve = 0;
};

constexpr Attack kAttacks[] = {
    {"open-proc", [](const Loot&) { return rawOpen(__NR_openat, AT_FDCWD, "/proc/self/status", O_RDONLY, 0); }, kKilled,
     kHarmless},
    {"open-root", [](const Loot&) { return rawOpen(__NR_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0); }, kKilled,
     kHarmless},
    {"open-path", [](const Loot&) { return rawOpen(__NR_openat, AT_FDCWD, "/", O_PATH, 0); }, kKilled, kHarmless},
    {"open-create", [](const Loot&) { return rawOpen(__NR_openat, AT_FDCWD, "/x", O_CREAT | O_WRONLY, 0600); }, kKilled,
     fails(EROFS)},
    {"open-legacy", [](const Loot&) { return rawOpen(__NR_open, "/etc/passwd", O_RDONLY, 0); }, kKilled, fails(ENOENT)},
    {"openat2",
     [](const Loot&) {
       OpenHow how;
       return rawOpen(__NR_openat2, AT_FDCWD, "..", &how, sizeof how);
     }},
    {"open-by-handle", [](const Loot& loot) { return raw(__NR_open_by_handle_at, loot.rpc, nullptr, O_RDONLY); }},
    {"stat-path",
     [](const Loot&) {
       struct stat status {};
       return raw(__NR_newfstatat, AT_FDCWD, "/", &status, 0);
     },
     kKilled, kHarmless},
    {"list-root",
     [](const Loot&) {
       char block[512];
       return raw(__NR_getdents64, 0, block, sizeof block);
     },
     kKilled, fails(ENOTDIR)},
    {"make-folder", [](const Loot&) { return raw(__NR_mkdirat, AT_FDCWD, "/x", 0755); }, kKilled, fails(EROFS)},
    {"make-device", [](const Loot&) { return raw(__NR_mknodat, AT_FDCWD, "/x", S_IFBLK | 0600, 0x800); }},
    {"change-root", [](const Loot&) { return raw(__NR_chroot, "/"); }},
    {"change-folder", [](const Loot&) { return raw(__NR_chdir, ".."); }, kKilled, kHarmless},
    {"mount", [](const Loot&) { return raw(__NR_mount, "none", "/", "tmpfs", 0, nullptr); }},
    {"remount", [](const Loot&) { return raw(__NR_mount, nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr); }},
    {"unmount", [](const Loot&) { return raw(__NR_umount2, "/", MNT_DETACH); }},
    {"pivot-root", [](const Loot&) { return raw(__NR_pivot_root, ".", "."); }},
    {"new-mount", [](const Loot&) { return raw(__NR_fsopen, "proc", 0); }},
    {"clone-mount", [](const Loot&) { return raw(__NR_open_tree, AT_FDCWD, "/", 1); }},
    {"inotify", [](const Loot&) { return raw(__NR_inotify_init1, 0); }},
    {"fanotify", [](const Loot&) { return raw(__NR_fanotify_init, 0, 0); }},
};

}  // namespace

std::span<const Attack> fileAttacks() {
  return kAttacks;
}

}  // namespace vmmhost::hostile
