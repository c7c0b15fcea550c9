@0xe2c7f9186b3d5a07;
# The control socket of one VM's supervisor: <runtime>/<name>/control. Its bootstrap capability is a
# Control. Clients are checked by SO_PEERCRED: the supervisor's own user and root only.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("vmmhost::schema");

using import "error.capnp".Error;
using import "vm.capnp".VmConfig;
using import "worker.capnp".Abilities;
using import "worker.capnp".EndCause;
using import "worker.capnp".Descriptor;

const controlMajor :UInt16 = 1;
const controlMinor :UInt16 = 2;  # 1: further consoles; 2: abilities, stop by signal

enum VmState {
  preparing @0;   # name reserved, worker being started and verified
  created @1;
  running @2;
  paused @3;
  stopping @4;    # shutdown was asked for, or an end is being carried out
  ended @5;
}

enum EndKind {
  # Why a VM ended, as its supervisor saw it.
  guest @0;          # of the guest's or the hypervisor's own accord: see cause
  stopped @1;        # by the stop verb or an embedder
  timeout @2;        # --timeout
  signalled @3;      # a signal ended the foreground client or the supervisor
  clientGone @4;     # the foreground client vanished without detaching
  workerDied @5;     # the worker process ended unasked
  startFailed @6;    # it never ran: see error
  supervisorDied @7; # found by a later command
}

struct Outcome {
  kind @0 :EndKind;
  cause @1 :EndCause;       # for kind guest
  detail @2 :Text;
  exitCode @3 :Int32;       # what `run` and `wait` exit with
  error @4 :Error;          # null unless something failed
  workerExit :union {
    none @5 :Void;          # it never started, or was ended by the host
    code @6 :Int32;
    signal @7 :Int32;
    unknown @8 :Void;
  }
  lastLog @9 :List(Text);   # the worker's last log lines when it died unasked
  timings @10 :List(Timing);
  workerPrivateBytes @11 :UInt64;   # as in VmInfo, just before the worker was ended; 0: not measured, as when somebody
                                    # else than the guest ended it, or it would have taken too long
  notes @12 :List(Text);    # what a user should know of what was left behind, as disks that had grown; at most 64
}

struct Timing {
  phase @0 :Text;
  ns @1 :UInt64;            # CLOCK_MONOTONIC, absolute
}

struct Counters {
  # From the worker's shared page: never trusted, only shown.
  names @0 :List(Text);
  values @1 :List(UInt64);
}

struct StateBounds {
  # How much the state folder can hold at most, in bytes.
  consoleLogs @0 :UInt64;   # what all consoles of the VM said, older generations included
  vmLog @1 :UInt64;         # what the host and the worker logged
  exitRecord @2 :UInt64;
  vm @3 :UInt64;            # all of that
  user @4 :UInt64;          # of all VMs of the user; what would exceed it is not started
}

struct VmInfo {
  name @0 :Text;
  backend @1 :Text;
  state @2 :VmState;
  supervisorPid @3 :Int32;
  workerPid @4 :Int32;          # 0: none
  startedUnixMs @5 :Int64;
  endedUnixMs @6 :Int64;        # 0: not ended
  config @7 :VmConfig;
  abilities @8 :List(Text);
  counters @9 :Counters;
  outcome @10 :Outcome;         # null: not ended
  timings @11 :List(Timing);
  choice @12 :Text;             # why this backend, when it was chosen by `auto`
  detached @13 :Bool;
  jail @14 :List(Text);         # what the host verified from outside, one part a line
  workerPrivateBytes @15 :UInt64;   # private memory of the worker outside guest RAM, 0: not known
  removeOnEnd @16 :Bool;
  vsockSocket @17 :Text;        # path of the socket that reaches the guest's vsock ports; empty: none, or ended
  stateBounds @18 :StateBounds; # null: it has no state folder
  supervisorBuild @19 :Text;    # e.g. "vmmhost 0.1.0"; empty from supervisors that tell it in `hello` alone
  workerBuild @20 :Text;        # what the worker said of its own, at most 64 bytes, printable; empty: none yet
}

interface Control {
  hello @0 (clientMajor :UInt16, clientMinor :UInt16, build :Text)
      -> (major :UInt16, minor :UInt16, build :Text, error :Error);
  # Each side tells its build, e.g. "vmmhost 0.1.0", and keeps 64 bytes of the other's.
  info @1 (memoryWithinMs :UInt32 = 700) -> (info :VmInfo, error :Error);
  # How long the answer may wait for workerPrivateBytes, which is then 0; 0: nobody asks for it. A supervisor waits for
  # 1 s at most, and for 5 s where tests and benches want the figure (awaitMeasurement).
  shutdown @2 () -> (error :Error);
  # Asks the guest to power off; answers when it has been asked.
  stop @3 (kind :EndKind, reason :Text, signal :Int32) -> (outcome :Outcome, error :Error);
  # Ends the VM now; answers when all it held is gone. `signal`, since 1.2: which one, for kind signalled; 0 from a client
  # before that, which has its name ("SIGINT") as reason.
  pause @4 () -> (error :Error);
  resume @5 () -> (error :Error);
  reset @6 () -> (error :Error);
  wait @7 () -> (outcome :Outcome, error :Error);
  # Answers when the VM has ended and all it held is gone.
  console @8 (replayBytes :UInt32, input :Bool, port :UInt32) -> (stream :Descriptor, error :Error);
  # A stream socket with the output of consoles[port], at first up to replayBytes of what it said before. A reader
  # that is slower than the guest loses the oldest bytes, and is told how many; it never slows the guest.
  watch @9 (sink :StateSink) -> (error :Error);
  # State changes from now on, each exactly once and in order.
  started @10 () -> (info :VmInfo, error :Error);
  # Answers when guest code runs, or with the reason why it does not.
  detach @11 () -> (error :Error);
  # From the client that started the VM: its going away ends the VM no longer.
  resizeConsole @12 (port :UInt32, columns :UInt16, rows :UInt16) -> (error :Error);
  # The terminal that consoles[port] is shown on has this size now: the last client that says so counts.
  setBalloon @13 (target :UInt64) -> (error :Error);
  # How much memory the guest is asked to give up, in bytes. Answers when it has been asked.
  balloon @14 () -> (target :UInt64, actual :UInt64, error :Error);
  # What it was asked for, and what it says it has given up.
  abilities @15 () -> (abilities :Abilities, error :Error);
  # Since 1.2: what the worker can do for this VM, each as an object whose calls the supervisor looks at, with a deadline,
  # and answers itself where the VM cannot be asked now. An ability that is new needs no method of its own here:
  # shutdown, pause, resume, reset, resizeConsole, setBalloon and balloon are old, and go the same way.
}

interface StateSink {
  changed @0 (state :VmState, unixMs :Int64, detail :Text) -> stream;
}

struct LaunchRequest {
  # From `vmmhost run` to the supervisor that it starts, on the supervisor's descriptor 4 (a sealed memfd).
  config @0 :VmConfig;
  backend @1 :Text;             # a name, or "auto"
  workingDirectory @2 :Text;    # relative paths of the config are relative to this
  timeoutMs @3 :UInt64;         # 0: none
  removeOnEnd @4 :Bool;
  detached @5 :Bool;            # no lifeline: the VM outlives the client
  without @6 :List(Text);       # parts of the jail given up by name
  clientStartNs @7 :UInt64;     # CLOCK_MONOTONIC when the client began
  runtimeDirectory @8 :Text;
  stateDirectory @9 :Text;
  pluginPath @10 :Text;         # VMMHOST_PLUGIN_PATH of the client
  measureMemory @11 :Bool;      # the outcome tells the worker's private memory
  awaitMeasurement @12 :Bool;   # and the end waits for it up to 5 s, for tests and benches; else 50 ms
  explainJail @13 :Bool;        # a call that the jail forbids is looked at before the process ends
}
