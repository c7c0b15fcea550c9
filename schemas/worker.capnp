@0xb8e5a1f24c6d7303;
# Between the host and one worker process, over the worker's descriptor 3. The worker's bootstrap
# capability is a Worker. The host never accepts descriptors from a worker.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("vmmhost::schema");

using import "error.capnp".Error;
using import "vm.capnp".VmConfig;

const protocolMajor :UInt16 = 1;  # a different major is refused
const protocolMinor :UInt16 = 2;  # 1: vsock; 2: Resource.memory

struct Hello {
  protocolMajor @0 :UInt16;
  protocolMinor @1 :UInt16;
  build @2 :Text;                # e.g. "vmmhost 0.1.0"
  features @3 :List(Text);
}

interface Descriptor {
  # Carries one file descriptor.
}

struct Resource {
  # What an attached descriptor is for.
  union {
    file @0 :UInt32;             # the FileRef with this resource number
    device @1 :Text;             # a device of the launch plan, by its name there
    console @2 :UInt32;          # stream socket of the console with this index
    counters @3 :Void;           # sealed shared memory, see ipc/include/vmmhost/counters.h
    nic :group {                 # a queue of the TAP device of nics[index], ready for use: see Resources::takeNic
      index @4 :UInt32;
      queue @5 :UInt32;          # from 0 on
    }
    memory @6 :Void;             # since 1.2: guest memory that is shared, see Resources::takeMemory
  }
}

interface Worker {
  hello @0 (host :Hello) -> (worker :Hello, error :Error);
  # First call. Nothing else is answered before it.

  confirm @1 () -> (error :Error);
  # The host has verified the jail from outside. The worker drops the rights that only starting up needed
  # and becomes non-dumpable before it answers.

  attach @2 (resource :Resource, descriptor :Descriptor) -> (error :Error);
  # One descriptor a call.

  create @3 (config :VmConfig, events :EventSink, vsock :VsockHost) -> (vm :Vm, abilities :Abilities, error :Error);
  # Once. When it answers, every thread of the worker has its final confinement; no guest code has run.
  # `vsock` is null unless the configuration has a vsock device.
}

struct Abilities {
  # What this VM can do beyond starting and stopping: null where it cannot. The set agrees with the
  # capabilities that the backend's plugin advertises.
  pausable @0 :Pausable;
  powerButton @1 :PowerButton;
  resettable @2 :Resettable;
  balloon @3 :BalloonControl;
  snapshots @4 :Snapshots;
  consoleSize @5 :ConsoleSize;
  vsock @6 :VsockDevice;
}

interface Vm {
  start @0 () -> (error :Error);
  # Guest code runs from here on.
}

interface Pausable {
  pause @0 () -> (error :Error);   # answers when no virtual CPU runs; idempotent
  resume @1 () -> (error :Error);  # idempotent
}

interface PowerButton {
  press @0 () -> (error :Error);   # asks the guest; the end is reported as an event
}

interface Resettable {
  reset @0 () -> (error :Error);   # the guest starts again from its boot state
}

interface BalloonControl {
  setTarget @0 (bytes :UInt64) -> (error :Error);
  # How much memory the guest is asked to give up.
  actual @1 () -> (bytes :UInt64, error :Error);
  # How much it has given up, as far as it tells.
}

interface ConsoleSize {
  set @0 (console :UInt32, columns :UInt16, rows :UInt16) -> (error :Error);
  # The terminal that a console is shown on has this size now. Consoles whose kind has no size take no notice.
}

interface Snapshots {
  save @0 (file :Descriptor) -> (error :Error);
}

interface VsockDevice {
  # Connections of the host to the guest.
  connect @0 (port :UInt32, socket :Descriptor) -> (error :Error);
  # A client of the host wants this port of the guest. Its socket is connected and does not block. Answers when
  # the worker has taken the socket. The worker writes "OK <host port>\n" to it once the guest has accepted,
  # before any byte of the guest, and closes it if the guest does not want it.
}

interface VsockHost {
  # Connections of the guest to the host.
  connect @0 (port :UInt32) -> (socket :Descriptor, error :Error);
  # The guest wants this port of the host (CID 2). A connected stream socket that does not block, or notFound
  # where nothing listens. A worker has few of these calls open at a time, and drops what carried the
  # descriptor once it has it: a host gives only so many that are not dropped.
}

enum EndCause {
  unknown @0;
  powerOff @1;       # the guest powered itself off
  reset @2;          # the guest asked for a reset
  tripleFault @3;
  crash @4;          # the hypervisor could not go on: KVM internal error, failed entry
  panic @5;          # the guest reported a kernel panic
  watchdog @6;
  workerFault @7;    # the worker found a fault of its own and says so
}

struct Event {
  union {
    ended @0 :Ended;             # no guest code runs any more; the last event
    resetDone @1 :Void;
    guestPanicked @2 :Text;      # the guest said so and still runs
    bootPhase @3 :BootPhase;     # what the guest wrote to its boot-timer port
    diskFull @4 :UInt32;         # the host's file system has no room for what the guest writes to disks[N]: the guest
                                 # gets an error for it, and runs on
  }
  struct Ended { cause @0 :EndCause; detail @1 :Text; }
  struct BootPhase { value @0 :UInt8; monotonicNs @1 :UInt64; }
}

interface EventSink {
  event @0 (event :Event) -> stream;
  # Answered late where events come faster than a VM needs: a guest decides how often there are some. A worker waits for
  # answers as streams do, and drops what its guest makes too much of; one that has 48 late answers to come is at fault.
}
