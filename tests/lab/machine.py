"""The lab's outer machine: QEMU that translates, Debian's kernel, the agent (agent.c) at the other end of a port."""
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "guest"))
from newc import Archive  # noqa: E402  (found through the line above)

# Both are many times what was ever seen, on a machine that compiles on every core meanwhile.
BOOT_LIMIT = 240
# The agent sends a sign of life every 2 s; the kernel tells of a soft lockup after 60 s.
SILENCE_LIMIT = 75
# What a monitor says of a machine that hangs; twice, since a processor that spins moves.
QUESTIONS = ["info status", "info registers", "info registers", "info lapic", "info pic"]
MAX_INPUT = 32 << 10  # what agent.c takes at once
CONSOLE_KEPT = 64 << 10
CONSOLE_SHOWN = 150  # lines: the traces of two processors
# Fresh in the machine: what is to stay visible below them is named to init.
FRESH = ("/tmp/", "/run/")
COMMAND_LINE = (
    "console=ttyS0 loglevel=5 panic=-1 oops=panic "
    # A machine that stands still is to say where: 60 s in the kernel without scheduling are no mere slowness.
    "watchdog_thresh=30 softlockup_panic=1 softlockup_all_cpu_backtrace=1 sysctl.kernel.panic_on_rcu_stall=1 "
    "rcupdate.rcu_cpu_stall_timeout=60 "
    # A machine that translates on a busy host misses the ticks by which the kernel checks its timer.
    "no_timer_check tsc=reliable "
    "rcupdate.rcu_expedited=1 cryptomgr.notests random.trust_cpu=on audit=0")


class LabError(Exception):
    """The lab failed, not what runs in it."""


class Job:
    def __init__(self, arguments, folder, environment):
        self.arguments, self.folder, self.environment = arguments, folder, environment
        self.output = None  # absolute path: what the command leaves there is handed back
        self.copies = []
        self.keep = []
        self.has_input = False

    def records(self):
        records = [b"a" + os.fsencode(word) for word in self.arguments]
        records += [b"e" + os.fsencode(f"{name}={value}") for name, value in self.environment.items()]
        records.append(b"d" + os.fsencode(self.folder))
        records.append(b"s1" if self.has_input else b"s0")
        if self.output:
            records.append(b"o" + os.fsencode(self.output))
        return b"".join(record + b"\0" for record in records)

    def kept(self):
        """What has to be seen below the folders that are fresh; a folder stands for what is in it."""
        kept = []
        for path in sorted({os.path.realpath(path) for path in [self.folder, TOP, *self.keep, *self.copies]}):
            if path.startswith(FRESH) and not any(path.startswith(above + "/") for above in kept):
                kept.append(path)
        return "".join(path + "\n" for path in kept)


def parents(path):
    return parents(os.path.dirname(path)) + [path] if path != "/" else []


class Copies:
    """Files and trees as entries of the overlay's upper layer, with the folders that lead to them."""

    def __init__(self, archive):
        self.archive = archive
        self.done = set()
        archive.folder("upper")

    def add(self, path):
        # A folder of the upper layer would replace a symbolic link on the way, as /bin is one.
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not os.path.lexists(real):
            raise LabError(f"--copy: there is no {path}")
        for above in parents(os.path.dirname(real)):
            self._put(above)
        self._put(real)
        if os.path.islink(real):
            self.add(os.path.realpath(real))
        elif os.path.isdir(real):
            for name in sorted(os.listdir(real)):
                below = os.path.join(real, name)
                if os.path.islink(below):
                    self._put(below)
                elif os.path.isdir(below) or os.path.isfile(below):
                    self.add(below)

    def _put(self, path):
        if path not in self.done:
            self.done.add(path)
            self.archive.copy("upper" + path, path)


def write_initramfs(file, kit, job):
    """The machine's own, and one that only this job has: the kernel unpacks what follows on each other."""
    with open(os.path.join(kit, "initramfs.cpio"), "rb") as own:
        file.write(own.read())
    archive = Archive(file)
    archive.file("lab/job", job.records(), 0o600)
    archive.file("lab/keep", os.fsencode(job.kept()))
    copies = Copies(archive)
    for path in job.copies:
        copies.add(os.path.abspath(path))
    archive.finish()
    file.flush()


class Machine:
    """One job in one machine. `sink(type, data)` gets the frames that carry data: o, e, t."""

    def __init__(self, kit, cpus, memory, job, sink, console=None):
        self.sink, self.show_console = sink, console
        self.console = bytearray()
        self.qemu_log = bytearray()
        self.received = bytearray()
        self.code = None
        self.times = {}
        self.input_wanted = False
        self.selector = selectors.PollSelector()  # unlike epoll it takes a regular file for input
        self.started = time.monotonic()
        self.qemu = None
        self.initramfs = tempfile.NamedTemporaryFile(prefix="vmmhost-lab-", suffix=".cpio")
        try:
            write_initramfs(self.initramfs, kit, job)
            self._start(kit, cpus, memory)
        except BaseException:
            self.close()
            raise

    def _start(self, kit, cpus, memory):
        self.port, port = socket.socketpair()
        self.serial, serial = socket.socketpair()
        self.monitor, monitor = socket.socketpair()
        # setpriv: should this process be killed, the kernel ends QEMU.
        command = [
            "setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display",
            "none", "-no-reboot", "-M", "pc", "-accel", "tcg,thread=multi",
            # The agent's timer needs an interrupt of its own: 16 to 23, as q35 has them.
            "-global", "hpet.hpet-intcap=0xff0104",
            # Without erms and fsrm, kernels, the guests' too, copy and clear memory by words: translated, "rep movsb" is
            # a loop that moves a byte each time.
            "-cpu", "max,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-mpx,-pku,-erms,-fsrm", "-smp", str(cpus),
            "-m", memory, "-kernel", os.path.join(kit, "vmlinux"), "-initrd", self.initramfs.name, "-append",
            COMMAND_LINE, "-chardev", f"socket,id=console,fd={serial.fileno()}", "-serial", "chardev:console",
            "-chardev", f"socket,id=monitor,fd={monitor.fileno()}", "-mon", "chardev=monitor,mode=control",
            "-chardev", f"socket,id=lab,fd={port.fileno()}", "-device", "virtio-serial-pci", "-device",
            "virtserialport,chardev=lab,name=vmmhost.lab", "-device", "virtio-rng-pci", "-fsdev",
            "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap", "-device",
            "virtio-9p-pci,fsdev=host,mount_tag=host"]
        self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, pass_fds=(port.fileno(), serial.fileno(), monitor.fileno()),
                                     start_new_session=True)  # a ^C at the terminal is ours to act on
        port.close()
        serial.close()
        monitor.close()
        self.selector.register(self.port, selectors.EVENT_READ, self._read_port)
        self.selector.register(self.serial, selectors.EVENT_READ, self._read_console)
        self.selector.register(self.qemu.stdout, selectors.EVENT_READ, self._read_log)

    def close(self):
        if self.qemu is not None:
            self.qemu.kill()
            self.qemu.wait()
        self.selector.close()
        self.initramfs.close()

    def run(self, timeout=None):
        """Until the command ended: its exit code. None if `timeout` seconds, counted from its start, were over."""
        silence = booting = running = 0.0
        while self.code is None:
            before = time.monotonic()
            ready = self.selector.select(1)
            # If this took long, everything was stopped meanwhile, the machine with it: nothing has been waited for.
            waited = min(time.monotonic() - before, 2)
            silence += waited
            for key, _ in ready:
                if key.fileobj is self.port:
                    silence = 0.0
                key.data()
            if "shell" not in self.times:
                booting += waited
                if booting > BOOT_LIMIT:
                    raise LabError(f"the outer machine was not up within {BOOT_LIMIT} s\n{self.tail()}")
                continue
            running += waited
            if silence > SILENCE_LIMIT:
                raise LabError(f"the outer machine hangs: no sign of life for {SILENCE_LIMIT} s\n{self.tail()}\n"
                               f"{self.state()}")
            if timeout is not None and self.code is None and running > timeout:
                return None
        return self.code

    def tail(self):
        text = bytes(self.console).decode(errors="replace").replace("\r", "")
        lines = text.splitlines()[-CONSOLE_SHOWN:]
        log = bytes(self.qemu_log).decode(errors="replace").splitlines()[-CONSOLE_SHOWN:]
        return "\n".join(["the end of its console:", *("  | " + line for line in lines),
                          *(["what QEMU said:"] if log else []), *("  | " + line for line in log)])

    def state(self):
        """What QEMU says of the machine, for whoever looks for the reason why it hangs."""
        self.monitor.settimeout(5)
        said = []
        try:
            with self.monitor.makefile("rw", encoding="utf-8") as monitor:
                asked = [("qmp_capabilities", {})]
                asked += [("human-monitor-command", {"command-line": question}) for question in QUESTIONS]
                for command, arguments in asked:
                    monitor.write(json.dumps({"execute": command, "arguments": arguments}))
                    monitor.flush()
                    answer = {}
                    while "return" not in answer and "error" not in answer:
                        answer = json.loads(monitor.readline())
                    if arguments:
                        said += [arguments["command-line"] + ":"] + str(answer.get("return", answer)).splitlines()
            said = [line for line in said if not line.startswith(("XMM", "FPR", "  pin"))]
        except (OSError, ValueError) as error:
            said.append(f"no answer from QEMU's monitor: {error}")
        return "\n".join(["what QEMU knows of it:", *("  | " + line for line in said)])

    def _ended(self):
        # The console and QEMU's own words may still be on their way.
        for read in (self._read_console, self._read_log):
            while read():
                pass
        status = self.qemu.wait()
        what = "ended by itself"
        if b"Kernel panic" in self.console or b"Oops" in self.console:
            what = "crashed"
        raise LabError(f"the outer machine {what} (QEMU's exit status: {status})\n{self.tail()}")

    def _read_console(self):
        data = self.serial.recv(65536)
        if not data:
            self._forget(self.serial)
        self.console += data
        del self.console[:-CONSOLE_KEPT]
        if self.show_console is not None:
            self.show_console(data)
        return data

    def _read_log(self):
        data = os.read(self.qemu.stdout.fileno(), 65536)
        if not data:
            self._forget(self.qemu.stdout)
        self.qemu_log += data
        del self.qemu_log[:-CONSOLE_KEPT]
        return data

    def _forget(self, file):
        if file in self.selector.get_map():
            self.selector.unregister(file)

    def _read_port(self):
        data = self.port.recv(1 << 18)
        if not data:
            self._ended()
        self.received += data
        while len(self.received) >= 5 and self.code is None:
            length, = struct.unpack_from("<I", self.received, 1)
            if len(self.received) < 5 + length:
                break
            kind, payload = chr(self.received[0]), bytes(self.received[5:5 + length])
            del self.received[:5 + length]
            self._take(kind, payload)

    def _take(self, kind, payload):
        if kind == "h":
            self.times.update((name, float(value)) for name, _, value in
                              (word.partition("=") for word in payload.decode().split()))
            self.times["shell"] = time.monotonic() - self.started
        elif kind == "x":
            self.times["end"] = time.monotonic() - self.started
            self.code = payload[0]
        elif kind == "f":
            raise LabError(payload.decode(errors="replace"))
        elif kind == "i":
            self.selector.register(0, selectors.EVENT_READ, self._read_input)
        elif kind in "oet":
            self.sink(kind, payload)

    def _read_input(self):
        self.selector.unregister(0)
        data = os.read(0, MAX_INPUT)
        self.port.sendall(b"i" + struct.pack("<I", len(data)) + data)


def end_on_signals():
    """SIGINT, SIGTERM and SIGHUP become SystemExit with the code that a shell would give: machines are closed by it."""
    def end(number, _):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, end)
