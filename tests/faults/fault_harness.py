"""Stands on tests/e2e/harness.py: the fake backend, a neighbour that must never notice, and a look at everything that
could be left.

Environment, besides the harness's: VMMHOST_FAKE_PLUGINS (folder of the fake backend's plugin).
"""
import ctypes
import fcntl
import json
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))

import harness  # noqa: E402,F401
from harness import (DEADLINE, LONG, SANITIZED, OrdinaryUserTest, VmmhostTest, cgroups, flood_lines,  # noqa: E402,F401
                     guest, is_gone, processes, read, wait_until)

FAKE_PLUGINS = os.environ["VMMHOST_FAKE_PLUGINS"]
# How long a neighbour may take to answer while another VM goes wrong, on a machine with more to do than this.
NEIGHBOUR_DEADLINE = 5
PR_SET_CHILD_SUBREAPER = 36
CALL = re.compile(r": system call \d+( \(\w+\))?$")
LEASES, FIRST_LEASED_UID = "/run/vmmhost/.uids", 0x76480000  # of user ids: host/runtime/directories.h


def children(pid):
    """Living children, as the kernel keeps them."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        found += [int(child) for child in read(f"/proc/{pid}/task/{thread}/children").split()]
    return found


def descendants(pid):
    """[(pid, name)] of everything below a process that is no zombie, parents first."""
    found, queue = [], [pid]
    while queue:
        for child in children(queue.pop(0)):
            if not is_gone(child):
                found.append((child, read(f"/proc/{child}/comm").strip().decode(errors="replace")))
                queue.append(child)
    return found


def descriptors(pid="self"):
    return len(os.listdir(f"/proc/{pid}/fd"))


def abandoned_leases():
    """User id leases that nobody holds: they are the machine's, whatever the runtime folder."""
    found = []
    try:
        names = os.listdir(LEASES) if os.geteuid() == 0 else []
    except FileNotFoundError:
        return found
    for name in names:
        try:
            with open(os.path.join(LEASES, name)) as lease:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(name)
        except (BlockingIOError, FileNotFoundError):
            pass
    return found


class FaultTest(VmmhostTest):
    """`neighbour` is a VM that echoes, with a console attached to it from the beginning to the end of each test."""
    with_neighbour = True

    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = FAKE_PLUGINS
        self.places_before = self.places()
        if self.with_neighbour:
            self.neighbour = self.detached("neighbour", "fake", kernel="serial_echo")
            self.neighbour_console = self.start("console", "neighbour")
            self.neighbour_said = 0
            self.assert_neighbour_well()
            self.neighbour_descriptors = descriptors(self.neighbour["supervisorPid"])
            self.assert_looks_where_things_are()

    def assert_looks_where_things_are(self):
        """What is looked for at the end is there while a VM lives."""
        supervisor, worker = self.neighbour["supervisorPid"], self.neighbour["workerPid"]
        self.assertIn(worker, [pid for pid, _ in descendants(supervisor)])
        if os.geteuid() == 0:
            uid = int(read(f"/proc/{worker}/status").split(b"\nUid:")[1].split()[0])
            self.assertTrue(os.path.exists(os.path.join(LEASES, str(uid - FIRST_LEASED_UID))), "its lease")

    def tearDown(self):
        try:
            if self.with_neighbour:
                self.end_neighbour()
            self.assert_spotless()
        finally:
            super().tearDown()

    def assert_neighbour_well(self):
        """It echoes, answers in time, is the same processes as ever, and holds no descriptor more."""
        self.neighbour_said += 1
        word = f"<{self.neighbour_said}>"
        began = time.monotonic()
        self.neighbour_console.stdin.write(word.encode())
        self.neighbour_console.stdin.flush()
        self.read_until(self.neighbour_console, word, NEIGHBOUR_DEADLINE)
        info = self.check("inspect", "neighbour", "--json", timeout=NEIGHBOUR_DEADLINE).json
        self.assertEqual(info["state"], "running")
        for key in ("supervisorPid", "workerPid", "startedUnixMs"):
            self.assertEqual(info[key], self.neighbour[key], key)
        return time.monotonic() - began

    def end_neighbour(self):
        self.assert_neighbour_well()
        # The descriptor of the last command's connection goes when the supervisor has seen its end.
        wait_until(lambda: descriptors(self.neighbour["supervisorPid"]) <= self.neighbour_descriptors, 5,
                   "the neighbour's supervisor holds as many descriptors as at first")
        self.neighbour_console.stdin.write(b"\x04")
        self.neighbour_console.stdin.flush()
        result = self.finish(self.neighbour_console, 10)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(self.run_vmmhost("wait", "neighbour").code, 0)
        self.check("rm", "neighbour")

    def assert_spotless(self):
        """Beyond the harness's processes, control groups and runtime entries."""
        state = os.path.join(self.folder, "state")
        wait_until(lambda: not abandoned_leases(), 10, "user id leases of the dead are gone")
        left = [os.path.join(folder, name) for folder, _, names in os.walk(state) for name in names
                if name.endswith(".new")]
        self.assertEqual(left, [], "half-written files left")
        self.assertEqual(self.places() - self.places_before, set(), "mounts or shared memory left")

    def places(self):
        """Mounts and shared memory of this test or of nobody in particular: other tests run at the same time."""
        mounts = {line for line in read("/proc/self/mounts").decode().splitlines() if "vmmhost" in line}
        shared = {name for name in os.listdir("/dev/shm") if name.startswith("vmmhost")}
        return {place for place in mounts | shared if "vmmhost-hostile" not in place}

    def fake(self, *arguments, kernel="loop", fault="", name="vm", **options):
        """`vmmhost run --rm --json` of a guest on the fake backend; `fault` is a command line."""
        return self.run_vmmhost("run", "--backend", "fake", "--rm", "--json", "--name", name, "--memory", "8M",
                                "--kernel", guest(kernel), "--cmdline", fault, *arguments, **options)

    def fake_detached(self, name, fault="", kernel="loop", *arguments):
        return self.detached(name, "fake", "--cmdline", fault, *arguments, kernel=kernel)

    def what_happened(self, result):
        """(kind or "startFailed", cause or error code, message) of a `run --json`. Without the name of a forbidden call,
        which the kernel's log does not always have."""
        document = json.loads(result.out)
        if "outcome" in document:
            outcome = document["outcome"]
            return outcome["kind"], outcome["cause"], CALL.sub("", outcome["detail"])
        return "startFailed", document["error"]["code"], CALL.sub("", document["error"]["message"])


def become_reaper():
    """Processes whose parents die become children of this one, so that none is overlooked."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury():
    """Reaps those of them that have ended; children of subprocess are its own to reap."""
    for child in children("self"):
        name = read(f"/proc/{child}/comm").strip()
        if name.startswith((b"vmmhost-supervi", b"vmmhost-worker")) and is_gone(child):
            try:
                os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                pass
