@0xc1ba1bf0f0c7d0a1;
# The one structured error that crosses every boundary of vmmhost.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("vmmhost::schema");

enum ErrorCode {
  # Stable and machine-readable: codes are only ever added, at the end.
  unknown @0;
  invalidArgument @1;     # the request is wrong whatever the state of the system
  notFound @2;            # no such VM, file, backend or plugin
  alreadyExists @3;       # the name is taken
  unsupported @4;         # this backend does not do that; the message names the operation or field
  unavailable @5;         # the backend is there but cannot be used on this machine
  permissionDenied @6;
  failedPrecondition @7;  # not in this state of the VM
  deadlineExceeded @8;
  cancelled @9;
  resourceExhausted @10;  # a limit was reached
  workerDied @11;         # the worker process ended while the call was under way
  protocol @12;           # a peer broke the protocol
  confinement @13;        # a worker is not confined as declared, or the system offers too little
  internal @14;           # a fault of vmmhost itself
  supervisorDied @15;     # the supervisor is gone. A client's own: in a message of a peer it counts as unknown
}

struct Error {
  # A result carries an Error pointer that is null when the call succeeded.
  code @0 :ErrorCode;
  message @1 :Text;    # one sentence that names the thing: file, field, device, VM
  hint @2 :Text;       # what to do about it; may be empty
  retryable @3 :Bool;  # the same call may succeed later without any change
  field @4 :Text;      # of the VM's configuration, at fault: "disks[0].format"; empty: none, or an older peer. The
                       # message names it too. Not printable ASCII, or over 256 bytes: counts as empty
}
