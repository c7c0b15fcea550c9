@0xd5f2c4d3a7b19e01;
# The one definition of a virtual machine. JSON configuration files have exactly this shape: a field of a
# struct is a member of an object, an enumerant is a string, a union is an object with one of its members.
#
# A backend that does not serve a field refuses with `unsupported` and names the field.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("vmmhost::schema");

annotation hostOnly(field) :Void;
# The host fills this field in; configuration files may not contain it.

annotation byteSize(field) :Void;
# In JSON: a number of bytes, or a string such as "512M" or "2GiB" (powers of 1024).

annotation textForm(struct) :Text;
# In JSON a plain string stands for an object that has only the field named here.

struct VmConfig {
  name @0 :Text;               # 1 to 64 bytes of [A-Za-z0-9_.-], not starting with '.' or '-'
  boot @1 :Boot;
  cpus @2 :Cpus;
  memory @3 :Memory;
  disks @4 :List(Disk);
  nics @5 :List(Nic);
  consoles @6 :List(Console);  # empty: one serial console
  vsock @7 :Vsock;
  shares @8 :List(Share);
  rng @9 :Rng;
  balloon @10 :Balloon;
  watchdog @11 :Watchdog;
  platform @12 :Platform;
}

struct FileRef $textForm("path") {
  # A file of the host. The host opens `path` and hands the descriptor to the worker under the number
  # `resource`; a worker sees an empty path.
  path @0 :Text;
  resource @1 :UInt32 $hostOnly;  # 0: not attached
}

struct Boot {
  kernel @0 :FileRef;
  initrd @1 :FileRef;
  cmdline @2 :Text;               # at most 2047 bytes, no control characters
  firmware @3 :FileRef;           # instead of a kernel
}

struct Cpus {
  count @0 :UInt32 = 1;           # online at boot
  max @1 :UInt32;                 # for hot-plug; 0: the same as count
  threadsPerCore @2 :UInt32 = 1;
  coresPerSocket @3 :UInt32;      # 0: all in one socket
}

struct Memory {
  size @0 :UInt64 = 536870912 $byteSize;
  maxSize @1 :UInt64 $byteSize;   # for hot-plug; 0: the same as size
  shared @2 :Bool;                # back guest memory by a memfd, so that another process can map it
  hugePages @3 :Bool;
}

struct Disk {
  file @0 :FileRef;
  readOnly @1 :Bool;
  id @2 :Text;                    # unique among the disks; empty: "disk<index>"
  serial @3 :Text;                # virtio-blk serial number, at most 20 bytes
  cache @4 :Cache;
  format @5 :Format;
  enum Cache { writeback @0; direct @1; unsafe @2; }
  enum Format { raw @0; qcow2 @1; }  # never guessed from the content
}

struct Nic {
  id @0 :Text;
  mac @1 :Text;                   # empty: derived from the VM's name; a worker always sees one
  mtu @2 :UInt16;                 # 0: that of the attachment, which a worker sees
  attachment :union {
    none @3 :Void;                # link down
    network @4 :Text;             # a vmmhost network by name
    tap @5 :Text;                 # an existing TAP device by name
  }
}

struct Console {
  kind @0 :Kind;
  enum Kind { serial @0; virtio @1; }
}

struct Vsock {
  enabled @0 :Bool = true;
  cid @1 :UInt32;                 # 0: chosen by the host
}

struct Share {
  tag @0 :Text;
  directory @1 :FileRef;
  readOnly @2 :Bool = true;
}

struct Rng { enabled @0 :Bool = true; }

struct Balloon {
  targetSize @0 :UInt64 $byteSize;  # of the balloon: memory that the guest is asked to give up
  deflateOnOom @1 :Bool = true;
  freePageReporting @2 :Bool;
}

struct Watchdog {
  action @0 :Action;
  enum Action { reset @0; powerOff @1; pause @2; }
}

struct Platform {
  machine @0 :Text;               # a backend's own machine type; empty: its default
  nestedVirtualization @1 :Bool;
  uuid @2 :Text;                  # SMBIOS UUID; empty: none
  options @3 :List(Option);       # a backend's own settings; unknown ones are refused
  struct Option { name @0 :Text; value @1 :Text; }
}
