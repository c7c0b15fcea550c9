@0xd5f2c4d3a7b19e01;
# The one definition of a virtual machine. JSON configuration files have exactly this shape: a field of a
# struct is a member of an object, an enumerant is a string, a union is an object with one of its members.
#
# A backend that does not serve a field refuses with `unsupported` and names the field.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("vmmhost::schema");

annotation since(field, union, group, enumerant) :UInt16;
# The minor version of the plugin interface (vmmhost/plugin.h) that it came with; everything here has one. The host
# refuses what is newer than a plugin's `abi`, by name: the plugin itself would not see it.

annotation keptByHost(field) :Void;
# The host alone acts on it, and takes it out of what a plugin is given: a plugin may be older. Not for union members.

annotation hostOnly(field) :Void;
# The host fills this field in; configuration files may not contain it.

annotation byteSize(field) :Void;
# In JSON: a number of bytes, or a string such as "512M" or "2GiB" (powers of 1024).

annotation textForm(struct) :Text;
# In JSON a plain string stands for an object that has only the field named here.

struct VmConfig {
  name @0 :Text $since(1);               # 1 to 64 bytes of [A-Za-z0-9_.-], not starting with '.' or '-'
  boot @1 :Boot $since(1);
  cpus @2 :Cpus $since(1);
  memory @3 :Memory $since(1);
  disks @4 :List(Disk) $since(1);
  nics @5 :List(Nic) $since(1);
  consoles @6 :List(Console) $since(1);  # empty: one serial console
  vsock @7 :Vsock $since(1);
  shares @8 :List(Share) $since(1);
  rng @9 :Rng $since(1);
  balloon @10 :Balloon $since(1);
  watchdog @11 :Watchdog $since(1);
  platform @12 :Platform $since(1);
}

struct FileRef $textForm("path") {
  # A file of the host. The host opens `path` and hands the descriptor to the worker under the number
  # `resource`; a worker sees an empty path.
  path @0 :Text $since(1);
  resource @1 :UInt32 $hostOnly $since(1);  # 0: not attached
}

struct Boot {
  kernel @0 :FileRef $since(1);
  initrd @1 :FileRef $since(1);
  cmdline @2 :Text $since(1);      # at most 2047 bytes, no control characters
  firmware @3 :FileRef $since(1);  # instead of a kernel
}

struct Cpus {
  count @0 :UInt32 = 1 $since(1);       # online at boot
  max @1 :UInt32 $since(1);             # for hot-plug; 0: the same as count
  threadsPerCore @2 :UInt32 = 1 $since(1);
  coresPerSocket @3 :UInt32 $since(1);  # 0: all in one socket
}

struct Memory {
  size @0 :UInt64 = 536870912 $byteSize $since(1);
  maxSize @1 :UInt64 $byteSize $since(1);  # for hot-plug; 0: the same as size
  shared @2 :Bool $since(1);               # back guest memory by a memfd, so that another process can map it
  hugePages @3 :Bool $since(1);
}

struct Disk {
  file @0 :FileRef $since(1);
  readOnly @1 :Bool $since(1);
  id @2 :Text $since(1);      # unique among the disks; empty: "disk<index>"
  serial @3 :Text $since(1);  # virtio-blk serial number, at most 20 bytes
  cache @4 :Cache $since(1);
  format @5 :Format $since(1);
  enum Cache { writeback @0 $since(1); direct @1 $since(1); unsafe @2 $since(1); }
  enum Format { raw @0 $since(1); qcow2 @1 $since(1); }  # never guessed from the content
}

struct Nic {
  id @0 :Text $since(1);
  mac @1 :Text $since(1);        # empty: derived from the VM's name; a worker always sees one
  mtu @2 :UInt16 $since(1);      # 0: that of the attachment, which a worker sees
  attachment :union $since(1) {
    none @3 :Void $since(1);     # link down
    network @4 :Text $since(1);  # a vmmhost network by name
    tap @5 :Text $since(1);      # an existing TAP device by name
  }
}

struct Console {
  kind @0 :Kind $since(1);
  enum Kind { serial @0 $since(1); virtio @1 $since(1); }
}

struct Vsock {
  enabled @0 :Bool = true $since(1);
  cid @1 :UInt32 $since(1);  # 0: chosen by the host
}

struct Share {
  tag @0 :Text $since(1);
  directory @1 :FileRef $since(1);
  readOnly @2 :Bool = true $since(1);
}

struct Rng { enabled @0 :Bool = true $since(1); }

struct Balloon {
  targetSize @0 :UInt64 $byteSize $since(1);  # of the balloon: memory that the guest is asked to give up
  deflateOnOom @1 :Bool = true $since(1);
  freePageReporting @2 :Bool $since(1);
}

struct Watchdog {
  action @0 :Action $since(1);
  enum Action { reset @0 $since(1); powerOff @1 $since(1); pause @2 $since(1); }
}

struct Platform {
  machine @0 :Text $since(1);          # a backend's own machine type; empty: its default
  nestedVirtualization @1 :Bool $since(1);
  uuid @2 :Text $since(1);             # SMBIOS UUID; empty: none
  options @3 :List(Option) $since(1);  # a backend's own settings; unknown ones are refused
  struct Option { name @0 :Text $since(1); value @1 :Text $since(1); }
}
