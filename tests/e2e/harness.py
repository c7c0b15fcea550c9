"""What every end-to-end test stands on: the installed command, folders of its own, and a check that nothing is left.

Environment: VMMHOST_STAGE (an installed prefix), VMMHOST_GUESTS (folder of bare-metal guests), VMMHOST_GUEST_KIT
(folder with vmlinux and initramfs.cpio; tests of stock Linux fail without it).
"""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import reachable
from reachable import USER

STAGE = os.environ["VMMHOST_STAGE"]
BUILD = os.path.dirname(os.path.abspath(STAGE))
GUESTS = os.environ["VMMHOST_GUESTS"]
GUEST_KIT = os.environ.get("VMMHOST_GUEST_KIT", "")
SANITIZED = os.environ.get("VMMHOST_SANITIZED", "") == "1"
LONG = os.environ.get("VMMHOST_TEST_LONG", "") == "1"  # the long form of a test that has two
VMMHOST = os.path.join(STAGE, "bin", "vmmhost")
# Private memory of worker-kvm besides guest RAM. Sanitizers keep shadow memory, where the figure says nothing.
MAX_WORKER_PRIVATE = 4 << 20
WIDE_WORKER_PRIVATE = 10 << 20  # of wide_machine
# Private memory of a VM's supervisor; of release builds, as debug builds are larger.
MAX_SUPERVISOR_PRIVATE = 8 << 20
RELEASE = os.environ.get("VMMHOST_BUILD_TYPE", "") == "Release" and not SANITIZED
SHOWN_OUTPUT = 2000  # bytes of a program's output that a failure shows
OTHERS_PATIENCE = 60  # until tests that run at the same time have cleared away what they killed
DEADLINE = 60 if not SANITIZED else 180


def guest(name):
    path = os.path.join(GUESTS, name + ".elf")
    if not os.path.exists(path):
        raise AssertionError(f"guest {path} was not built")
    return path


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def processes(folder):
    """pid -> (name, command line) of what vmmhost started for the test with this folder, and of what has no parent."""
    seen = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        name = read(f"/proc/{pid}/comm").strip().decode(errors="replace")
        if len(fields) > 1 and fields[0] != b"Z":
            seen[int(pid)] = (name, int(fields[1]))
    ours = {pid for pid, (name, parent) in seen.items()
            if (name.startswith("vmmhost") and folder.encode() in read(f"/proc/{pid}/environ")) or
            (name.startswith("vmmhost-worker") and parent <= 1)}
    grown = True
    while grown:
        children = {pid for pid, (_, parent) in seen.items() if parent in ours} - ours
        ours |= children
        grown = bool(children)
    return {pid: (seen[pid][0], read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace"))
            for pid in ours}


def cgroups():
    found = set()
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name.startswith("vmmhost-"):
                found.add(os.path.join(folder, name))
    return found


def wide_machine(folder):
    """Members of a configuration with more of everything than anybody wants: threads, descriptors, first uses of all kinds
    come together there. 8 processors, 8 disks, 8 cards, 4 consoles, and one of what there is once."""
    disks = []
    for number in range(8):
        path = os.path.join(folder, f"wide{number}.img")
        with open(path, "wb") as file:
            file.truncate(8 << 20)
        disks.append({"file": path, "readOnly": True} if number == 7 else {"file": path})
    return {
        "cpus": {"count": 8}, "disks": disks, "nics": [{} for _ in range(8)],
        "consoles": [{"kind": "serial"}, {"kind": "virtio"}, {"kind": "virtio"}, {"kind": "virtio"}],
        "rng": {}, "watchdog": {}, "vsock": {}, "balloon": {"targetSize": "8M", "freePageReporting": True},
    }


def private_bytes(pid):
    """Private_Clean and Private_Dirty of a process."""
    fields = [line.split() for line in read(f"/proc/{pid}/smaps").splitlines() if line.startswith(b"Private_")]
    return 1024 * sum(int(words[1]) for words in fields if words[0] in (b"Private_Clean:", b"Private_Dirty:"))


def flood_lines(count=512):
    """What the guest flood says."""
    return "".join(f"{number:08x} the quick brown fox jumps over the lazy dog 0123456789\n" for number in range(count))


def is_gone(pid):
    """True once nothing of the process runs: a zombie is its parent's to reap."""
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"])


def wait_until(condition, seconds, what):
    """Waits for something that another process does; for tests only, where there is nothing to be notified by."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.005)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


class VmmhostTest(unittest.TestCase):
    maxDiff = None
    # A worker that its own filter ends is at fault, whatever a test is about. Those whose workers are told to make a
    # forbidden call say so.
    may_make_forbidden_calls = False

    def setUp(self):
        self.before_cgroups = cgroups()
        self.folder = tempfile.mkdtemp(prefix="vmmhost-e2e-")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.path.join(self.folder, "home"),
            "VMMHOST_RUNTIME_DIR": os.path.join(self.folder, "run"),
            "VMMHOST_STATE_DIR": os.path.join(self.folder, "state"),
            "XDG_CACHE_HOME": os.path.join(self.folder, "cache"),
            "VMMHOST_MEASURE_MEMORY": "1",
        }
        for name, value in os.environ.items():
            if name.endswith("SAN_OPTIONS") or name == "VMMHOST_DEBUG":
                self.environment[name] = value
        for name in ("home", "run", "state", "cache"):
            os.mkdir(os.path.join(self.folder, name), 0o700)
        self.background = []

    def tearDown(self):
        # What a test left running on purpose is its own to end; whatever is left then is a leak.
        try:
            self.assert_nothing_left()
            self.assert_good_workers()
        finally:
            for process in self.background:
                if process.poll() is None:
                    process.kill()
                process.communicate()
            for pid in processes(self.folder):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            shutil.rmtree(self.folder, ignore_errors=True)

    def assert_nothing_left(self):
        left = {}

        def none_left():
            nonlocal left
            left = processes(self.folder)
            return not left

        try:
            wait_until(none_left, 3, "processes are gone")
        except AssertionError:
            self.fail(f"processes left: {left}")
        # Their names end with the supervisor's pid. Other tests run at the same time: what lives is theirs, and what
        # they killed on purpose they clear away in a moment.
        orphans = set()

        def no_orphans():
            nonlocal orphans
            orphans = {path for path in cgroups() - self.before_cgroups
                       if is_gone(path.rpartition("-")[2]) and os.path.exists(path)}
            return not orphans

        try:
            wait_until(no_orphans, OTHERS_PATIENCE, "control groups are gone")
        except AssertionError:
            self.fail(f"control groups left: {orphans}")
        runtime = os.path.join(self.folder, "run")
        left = {name: read(os.path.join(runtime, name, "record")).decode(errors="replace")
                for name in os.listdir(runtime) if not name.startswith(".")}
        self.assertEqual(left, {}, "runtime entries left")

    def assert_good_workers(self):
        """Looks at the records of VMs that ended: each tells how its worker ended, and what it used."""
        state = os.path.join(self.folder, "state")
        for name in os.listdir(state):
            path = os.path.join(state, name, "exit.json")
            if os.path.exists(path):  # else it runs, or its state was not kept
                text = read(path).decode(errors="replace")
                self.assert_no_forbidden_call(text)
                info = json.loads(text)
                if info.get("kind") != "supervisorDied":  # which a later command wrote, that knows no more
                    self.assert_small_worker(info.get("backend"), info["outcome"])

    def assert_no_forbidden_call(self, *texts):
        for text in texts:
            if not self.may_make_forbidden_calls and "ended by SIGSYS" in text:
                self.fail(f"a worker made a call that its jail forbids: {text}")

    def assert_small_worker(self, backend, outcome):
        if backend != "kvm" or SANITIZED:
            return
        used = int(outcome.get("workerPrivateBytes", 0))
        if outcome.get("kind", "guest") == "guest":  # exit.json leaves out what is the default
            self.assertGreater(used, 0, outcome)
        self.assertLessEqual(used, MAX_WORKER_PRIVATE, outcome)

    def command(self, *arguments):
        return [VMMHOST, *map(str, arguments)]

    def run_vmmhost(self, *arguments, stdin=None, timeout=DEADLINE, environment=None, **options):
        if "rm" in arguments:
            self.assert_good_workers()
        options.setdefault("cwd", self.folder)  # a working directory that whoever runs the command can reach
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout,
                              errors="replace", env={**self.environment, **(environment or {})},
                              stdin=subprocess.DEVNULL if stdin is None else None, **options)
        result = Result(done.returncode, done.stdout, done.stderr)
        self.assert_no_forbidden_call(result.out, result.err)
        if arguments[:1] == ("run",) and {"--json", "--rm"} <= set(arguments) and done.returncode in (0, 1, 3):
            self.assert_small_worker(result.json["backend"], result.json["outcome"])
        return result

    def check(self, *arguments, code=0, **options):
        result = self.run_vmmhost(*arguments, **options)
        self.assertEqual(result.code, code, f"{arguments}\nstdout: {result.out}\nstderr: {result.err}")
        return result

    def start(self, *arguments, **options):
        """A command in the background with pipes."""
        options.setdefault("cwd", self.folder)
        process = subprocess.Popen(self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=self.environment, **options)
        self.background.append(process)
        return process

    def finish(self, process, timeout=DEADLINE):
        out, err = process.communicate(timeout=timeout)
        result = Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        self.assert_no_forbidden_call(result.out, result.err)
        return result

    def detached(self, name, backend, *arguments, kernel="loop"):
        self.check("run", "--backend", backend, "--name", name, "--detach", "--memory", "64M",
                   "--kernel", guest(kernel), *arguments)
        return self.inspect(name)

    def inspect(self, name):
        info = self.check("inspect", name, "--json").json
        if info.get("backend") == "kvm" and info.get("state", "") in ("running", "paused") and not SANITIZED:
            self.assertGreater(info["workerPrivateBytes"], 0)
            self.assertLessEqual(info["workerPrivateBytes"], MAX_WORKER_PRIVATE)
        if info.get("state", "") in ("running", "paused") and RELEASE:
            used = private_bytes(info["supervisorPid"])
            self.assertGreater(used, 0, "the supervisor is there")
            self.assertLessEqual(used, MAX_SUPERVISOR_PRIVATE, "private memory of the supervisor")
        return info

    def state(self, name):
        return self.inspect(name)["state"]

    def read_until(self, process, text, seconds=DEADLINE):
        """Reads a background command's output until it holds `text`; one that ends without it is not waited for."""
        os.set_blocking(process.stdout.fileno(), False)
        seen, is_whole = b"", False

        def found():
            nonlocal seen, is_whole
            more = process.stdout.read()  # None: nothing as yet
            is_whole = more == b""
            seen += more or b""
            return is_whole or text.encode() in seen

        try:
            wait_until(found, seconds, f"{text!r} in the output")
        except AssertionError as error:
            self.fail(f"{error}; it ends with {seen[-SHOWN_OUTPUT:]!r}")
        if text.encode() not in seen:
            self.fail(f"output that ended without {text!r}: {seen[-SHOWN_OUTPUT:]!r}")
        return seen.decode(errors="replace")


class OrdinaryUserTest(VmmhostTest):
    """As an ordinary user: where the tests are root's, the commands run under uid USER."""
    copy = None

    @classmethod
    def setUpClass(cls):
        """A build tree in a private folder is out of an ordinary user's reach: ctest has made a copy then, and a test
        that is run by hand makes its own."""
        global VMMHOST, GUESTS
        cls.before = (VMMHOST, GUESTS)
        cls.reach = reachable.found()
        if not cls.reach and os.geteuid() == 0 and not reachable.can_use(BUILD):
            cls.reach = cls.copy = reachable.copy(BUILD)
        cls.reach = cls.reach or BUILD
        VMMHOST = os.path.join(cls.reach, "stage", "bin", "vmmhost")
        GUESTS = os.path.join(cls.reach, "guests")

    @classmethod
    def tearDownClass(cls):
        global VMMHOST, GUESTS
        VMMHOST, GUESTS = cls.before
        if cls.copy:
            shutil.rmtree(cls.copy)

    def setUp(self):
        super().setUp()
        self.as_user = []
        if os.geteuid() == 0:
            self.as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
            for folder, names, files in os.walk(self.folder):
                for name in [".", *names, *files]:
                    os.chown(os.path.join(folder, name), USER, USER)

    def command(self, *arguments):
        return [*self.as_user, *super().command(*arguments)]


def kvm_usable():
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def backends():
    """Backends that this machine can run; each test class says which it needs."""
    return (["kvm"] if kvm_usable() else []) + (["qemu"] if shutil.which("qemu-system-x86_64") else [])
