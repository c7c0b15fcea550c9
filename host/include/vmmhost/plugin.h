/* The vmmhost backend plugin interface: plain C, usable from C and C++.
 *
 * A plugin is a shared object that exports one symbol, vmmhost_plugin_entry. It probes whether its backend can be
 * used on this machine, validates a VM's configuration, and plans the launch of a worker process. It never touches a
 * VM: the worker that it names does that, in a jail that the host builds from the plan and verifies.
 *
 * Evolution. Every struct that crosses the boundary begins with its size as its maker knew it. A reader uses a field
 * only if the struct is long enough to hold it (VMMHOST_HAS_FIELD); what is missing has the value zero. Fields are
 * added at the end, never removed or given another meaning, within one major version of the ABI.
 *
 * Threading. The host calls a plugin from one thread at a time. Nothing here may block for longer than it takes to
 * look at the machine: there is a deadline (5 s for probe, in a process of its own; 1 s for the rest).
 *
 * Errors. A function returns 0 for success. Otherwise it has called host->error_set(error, ...) and returns -1; the
 * host reports the call as a fault of the plugin if it did not.
 *
 * Memory. What a plugin hands out stays valid until its release function is called, or for ever where there is none.
 * What the host hands in is valid during the call only. Strings are UTF-8 and NUL-terminated.
 */
#ifndef VMMHOST_PLUGIN_H
#define VMMHOST_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMMHOST_PLUGIN_ABI_MAJOR 1u
#define VMMHOST_PLUGIN_ABI_MINOR 2u
#define VMMHOST_PLUGIN_ABI ((VMMHOST_PLUGIN_ABI_MAJOR << 16) | VMMHOST_PLUGIN_ABI_MINOR)
#define VMMHOST_PLUGIN_ENTRY_SYMBOL "vmmhost_plugin_entry"

#define VMMHOST_HAS_FIELD(pointer, type, field) ((pointer)->size >= offsetof(type, field) + sizeof((pointer)->field))

#if defined(__GNUC__)
#define VMMHOST_PLUGIN_EXPORT __attribute__((visibility("default")))
#else
#define VMMHOST_PLUGIN_EXPORT
#endif

/* Codes for error_set: those of schemas/error.capnp. */
enum {
  VMMHOST_ERROR_INVALID_ARGUMENT = 1,
  VMMHOST_ERROR_NOT_FOUND = 2,
  VMMHOST_ERROR_ALREADY_EXISTS = 3,
  VMMHOST_ERROR_UNSUPPORTED = 4,
  VMMHOST_ERROR_UNAVAILABLE = 5,
  VMMHOST_ERROR_PERMISSION_DENIED = 6,
  VMMHOST_ERROR_RESOURCE_EXHAUSTED = 10,
  VMMHOST_ERROR_INTERNAL = 14
};

/* Owned by the host; lives for one call. */
typedef struct vmmhost_error vmmhost_error;

enum { VMMHOST_LOG_DEBUG = 0, VMMHOST_LOG_INFO = 1, VMMHOST_LOG_WARNING = 2, VMMHOST_LOG_ERROR = 3 };

/* A VM's configuration. capnp_words is a single-segment Cap'n Proto message (the segment without a stream header)
 * whose root is VmConfig of schemas/vm.capnp; plugins that want no Cap'n Proto ask host->config_json. */
typedef struct vmmhost_config {
  uint32_t size;
  uint32_t reserved;
  const void* capnp_words; /* 8-byte aligned */
  uint64_t capnp_word_count;
  const void* host_private;
} vmmhost_config;

/* What the host offers to a plugin. Valid for as long as the plugin is loaded. */
typedef struct vmmhost_host_api {
  uint32_t size;
  uint32_t abi;      /* VMMHOST_PLUGIN_ABI of the host */
  const char* build; /* e.g. "vmmhost 0.1.0" */
  void (*error_set)(vmmhost_error* error, uint32_t code, const char* message, const char* hint, int retryable);
  /* One line for the VM's log (`vmmhost logs --vmm`), or the log of a program that embeds; of probes warnings and
   * errors only. */
  void (*log)(int level, const char* message);
  /* The configuration as JSON, valid during the call that passed the configuration in; NULL if memory ran out. */
  const char* (*config_json)(const vmmhost_config* config);
  /* Since 1.2, after error_set: the field of the configuration that is at fault, as in JSON, e.g. "disks[0].format". At
   * most 256 bytes of printable ASCII, else it is passed over. The message names it too. */
  void (*error_field)(vmmhost_error* error, const char* field);
} vmmhost_host_api;

/* How guest code would run. */
enum {
  VMMHOST_ACCELERATION_NONE = 0,     /* pure software, e.g. a translating emulator */
  VMMHOST_ACCELERATION_EMULATED = 1, /* a hypervisor interface is there, but software carries guests out */
  VMMHOST_ACCELERATION_HARDWARE = 2
};

/* Capability names, and what they stand for. A worker's abilities agree with them. */
#define VMMHOST_CAP_BOOT_PVH "boot-pvh"             /* ELF kernels with a PVH note */
#define VMMHOST_CAP_BOOT_LINUX "boot-linux"         /* kernels as distributions ship them */
#define VMMHOST_CAP_INITRD "initrd"                 /* initial RAM disk */
#define VMMHOST_CAP_SMP "smp"                       /* more than one processor */
#define VMMHOST_CAP_DISK "disk"                     /* disks */
#define VMMHOST_CAP_NIC "nic"                       /* network cards, on TAP devices or on none */
#define VMMHOST_CAP_CONSOLE_SERIAL "console-serial" /* serial console, both directions */
#define VMMHOST_CAP_CONSOLE_VIRTIO "console-virtio" /* consoles that tell the guest how large a terminal is */
#define VMMHOST_CAP_PAUSE "pause"                   /* pause and resume */
#define VMMHOST_CAP_POWER_BUTTON "power-button"     /* the guest is asked to power off */
#define VMMHOST_CAP_RESET "reset"                   /* the guest starts again */
#define VMMHOST_CAP_TRIPLE_FAULT "triple-fault"     /* told apart from a reset */
#define VMMHOST_CAP_COUNTERS "counters"             /* counters in `inspect` */
#define VMMHOST_CAP_BALLOON "balloon"               /* memory that the guest gives back while it runs */
#define VMMHOST_CAP_VSOCK "vsock"                   /* a vsock device, connections both ways */

typedef struct vmmhost_probe_request {
  uint32_t size;
  uint32_t measure; /* non-zero: measure the guest instruction rate as well; may take up to a second */
} vmmhost_probe_request;

/* Zero-initialised by the host, filled by probe; `size` is the host's and stays. Strings are static or owned by the
 * plugin until the next call of probe. What is shown to people is cut after 1 KiB. */
typedef struct vmmhost_probe_result {
  uint32_t size;
  uint32_t usable;       /* 1: VMs can be started on this machine */
  uint32_t acceleration; /* VMMHOST_ACCELERATION_* */
  uint32_t capability_count;
  const char* const* capabilities;
  const char* summary;              /* one line, e.g. "KVM with hardware virtualization" */
  const char* hint;                 /* when not usable: the command or step that mends it */
  uint64_t instructions_per_second; /* of a guest; 0: not measured */
  /* Files that the answer depends on, besides /dev/kvm: absolute paths, at most 16, there or not. The host keeps the
   * answer of a usable backend until one of them, the plugin's file or /dev/kvm changes, or the machine is started
   * again. */
  const char* const* watched_paths;
  uint32_t watched_path_count;
  uint32_t reserved;
  /* Since 1.2. Fields of a configuration that came after the plugin's `abi` and that it looks at all the same; the host
   * refuses every other such field in its name. At most 256, as in a configuration file, without the indexes of lists:
   * "nics.attachment.network"; a value of an enumeration stands behind its field: "disks.cache.direct". */
  const char* const* config_fields;
  uint32_t config_field_count;
  uint32_t reserved2;
} vmmhost_probe_result;

/* The root file system that the worker sees; always read-only. */
enum {
  VMMHOST_ROOT_EMPTY = 0, /* nothing at all: the worker is a static executable */
  VMMHOST_ROOT_SYSTEM = 1 /* /usr, the dynamic loader's paths and cache, and the plan's binds. Under "worker-dynamic"
                           * and grants without PROGRAMS the libraries that the worker's file names, its loader, and
                           * the plan's binds; not under "worker-static" */
};

enum {
  VMMHOST_PLAN_PROC = 1u << 0, /* a /proc of the worker's own processes and nothing else; none with "worker-static", and
                                * of grants with FILES only */
  VMMHOST_PLAN_DEV = 1u << 1,  /* /dev with null, zero, urandom (root SYSTEM only) */
  VMMHOST_PLAN_TMP = 1u << 2,  /* a private writable /tmp of bounded size (root SYSTEM only) */
  /* Since 1.2. Kernel, initrd and firmware are files that the worker can open anew, by /proc/self/fd: those that its
   * user may not read come as a copy in memory, of at most 1 GiB. */
  VMMHOST_PLAN_REOPENABLE = 1u << 3
};

/* Since 1.2. What the base policy of a worker is composed of, besides what each has: threads, heap, an event loop on
 * what it was given, reading and writing descriptors, confining itself further. docs/plugins.md has what each allows.
 * Bits stay what they are. */
#define VMMHOST_GRANT_KVM (UINT64_C(1) << 0)             /* "kvm" */
#define VMMHOST_GRANT_TAP (UINT64_C(1) << 1)             /* "tap" */
#define VMMHOST_GRANT_RINGS (UINT64_C(1) << 2)           /* "rings": if ring_count is not 0, and only then */
#define VMMHOST_GRANT_DISKS (UINT64_C(1) << 3)           /* "disks" */
#define VMMHOST_GRANT_VSOCK_SOCKETS (UINT64_C(1) << 4)   /* "vsock-sockets" */
#define VMMHOST_GRANT_ACCEPT (UINT64_C(1) << 5)          /* "accept" */
#define VMMHOST_GRANT_MEMORY_FILES (UINT64_C(1) << 6)    /* "memory-files" */
#define VMMHOST_GRANT_EPOLLS (UINT64_C(1) << 7)          /* "epolls": if epoll_count is 0, and only then */
#define VMMHOST_GRANT_FILES (UINT64_C(1) << 8)           /* "files": with root SYSTEM, and always there */
#define VMMHOST_GRANT_TEMPORARY_FILES (UINT64_C(1) << 9) /* "temporary-files": with PLAN_TMP, and only then */
#define VMMHOST_GRANT_LOADER (UINT64_C(1) << 10)         /* "loader": root SYSTEM only */
#define VMMHOST_GRANT_PROGRAMS (UINT64_C(1) << 11)       /* "programs": root SYSTEM only, and not with rings */
#define VMMHOST_GRANT_PAIRS (UINT64_C(1) << 12)          /* "pairs" */

typedef struct vmmhost_bind {
  const char* source; /* absolute; a regular file or folder below /usr, /lib, /lib64 or /opt */
  const char* target; /* absolute, inside the root */
} vmmhost_bind;

/* A device that the host opens (O_RDWR | O_CLOEXEC) and attaches under `name`. */
typedef struct vmmhost_device {
  const char* name;  /* 1 to 32 bytes of [a-z0-9-], e.g. "kvm" */
  const char* path;  /* below /dev, e.g. "/dev/kvm" */
  uint32_t optional; /* 1: a worker that can do without gets none if it cannot be opened */
  uint32_t reserved;
} vmmhost_device;

typedef struct vmmhost_rlimit {
  uint32_t resource; /* RLIMIT_* */
  uint32_t reserved;
  uint64_t value; /* soft and hard */
} vmmhost_rlimit;

/* How the host is to start the worker. Zero-initialised by the host, filled by plan; `size` is the host's and stays.
 * The host copies it, checks it, and calls release if plan returned 0. */
typedef struct vmmhost_launch_plan {
  uint32_t size;
  uint32_t root;                /* VMMHOST_ROOT_* */
  const char* worker;           /* the executable: absolute, or relative to the plugin file's folder (".." works) */
  const char* const* arguments; /* argv[1..]; argv[0] is the worker's file name */
  uint32_t argument_count;      /* at most 64, of at most 4096 bytes each */
  uint32_t flags;               /* VMMHOST_PLAN_* */
  const char* seccomp;          /* the host's base policy: "worker-static" (also if NULL and there are no grants),
                                 * "worker-dynamic", "worker-system" */
  const vmmhost_bind* binds;
  const vmmhost_device* devices;
  const vmmhost_rlimit* rlimits;
  uint32_t bind_count;        /* at most 32 */
  uint32_t device_count;      /* at most 16 */
  uint32_t rlimit_count;      /* at most 16 */
  uint32_t max_processes;     /* processes and threads the worker may have; 0: virtual CPUs + 8 */
  uint64_t overhead_bytes;    /* memory besides guest memory, for the cgroup limit; 0: 64 MiB */
  uint64_t hello_timeout_ms;  /* 0: 5000; at most 600000 */
  uint64_t create_timeout_ms; /* 0: 15000; at most 600000 */
  void* plugin_private;
  void (*release)(struct vmmhost_launch_plan* plan); /* may be NULL */
  /* Since 1.1. Rings of io_uring that the worker starts with, restricted to reading, writing and syncing one file each,
   * since its policy lets it make none (vmmhost/rings.h); at most 32, not with "worker-system". It may get fewer. */
  uint32_t ring_count;
  uint32_t reserved;
  /* Since 1.2. Instances of epoll that the worker starts with, since its policy lets it make none: one for the event
   * loop of the SDK, whose epoll_create1() gives them out (ServeOptions::arguments), and one for each further loop; at
   * most 128. 0: it makes its own, and has at most 64 descriptors then. */
  uint32_t epoll_count;
  /* Since 1.2. Descriptors that it may have open; 0: 256. 64 to 4096, and 4096 more for a VM with a vsock device. With
   * epoll_count 0 always 64, with a vsock device or without. */
  uint32_t max_descriptors;
  /* Since 1.2. VMMHOST_GRANT_*: the base policy is composed of these, in place of one by name; `seccomp` has to be NULL
   * then. 0: by name. */
  uint64_t grants;
} vmmhost_launch_plan;

/* The plugin itself: static data of the shared object. */
typedef struct vmmhost_plugin {
  uint32_t size;
  /* VMMHOST_PLUGIN_ABI that it was built against: it knows the fields of vm.capnp that there were, and its workers are
   * held to the policies as they are since then. Up to 1.1 they may also make files of memory and
   * instances of epoll. */
  uint32_t abi;
  const char* name; /* 1 to 32 bytes of [a-z0-9-]: what --backend takes */
  const char* version;
  const char* description; /* one line */
  uint32_t preference;     /* among usable backends of one kind of acceleration `auto` takes the highest */
  uint32_t reserved;
  int (*probe)(const vmmhost_host_api* host, const vmmhost_probe_request* request, vmmhost_probe_result* result,
               vmmhost_error* error);
  /* Refuses what the backend cannot do, naming the field, before anything is started. It has to look at every field of
   * its version of vm.capnp; what came later does not reach it (see config_fields). */
  int (*validate)(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_error* error);
  int (*plan)(const vmmhost_host_api* host, const vmmhost_config* config, vmmhost_launch_plan* plan,
              vmmhost_error* error);
} vmmhost_plugin;

/* The one entry. Returns NULL (and sets error) if the plugin cannot work with this host. */
typedef const vmmhost_plugin* (*vmmhost_plugin_entry_fn)(const vmmhost_host_api* host, vmmhost_error* error);
VMMHOST_PLUGIN_EXPORT const vmmhost_plugin* vmmhost_plugin_entry(const vmmhost_host_api* host, vmmhost_error* error);

#ifdef __cplusplus
}
#endif

#endif /* VMMHOST_PLUGIN_H */
