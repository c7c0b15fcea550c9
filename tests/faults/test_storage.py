"""Full disks and read-only folders under logs, outcomes and runtime entries: the VM goes on or ends with a clear error,
and an outcome is whole or not there."""
import ctypes
import errno
import json
import os
import unittest

from fault_harness import FaultTest, flood_lines, guest, read

CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 1, 32, 16384, 1 << 18, 2
libc = ctypes.CDLL(None, use_errno=True)


def called(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(target, options, flags=0):
    called(libc.mount(b"tmpfs", target.encode(), b"tmpfs", flags, options.encode()))


@unittest.skipIf(os.geteuid() != 0, "only root may mount")
class Storage(FaultTest):
    """`self.place` is a tiny file system of the test's own."""

    @classmethod
    def setUpClass(cls):
        # A mount namespace of this process, for good: nothing of it reaches the machine's.
        called(libc.unshare(CLONE_NEWNS))
        called(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))

    def setUp(self):
        self.mounted = []
        super().setUp()

    def tearDown(self):
        try:
            for place in self.mounted:
                called(libc.umount2(place.encode(), MNT_DETACH))
        finally:
            super().tearDown()

    def tiny(self, name, options):
        """A file system of its own for the VM of the test; the neighbour lives elsewhere."""
        place = os.path.join(self.folder, f"tiny-{name}-{len(self.mounted)}")
        os.mkdir(place, 0o700)
        mount(place, "mode=700," + options)
        self.mounted.append(place)
        self.environment[f"VMMHOST_{'STATE' if name == 'state' else 'RUNTIME'}_DIR"] = place
        return place

    def neighbours_environment(self):
        for name in ("STATE", "RUNTIME"):
            self.environment[f"VMMHOST_{name}_DIR"] = os.path.join(self.folder, "run" if name == "RUNTIME" else "state")

    def assert_neighbour_well(self):
        here = dict(self.environment)
        self.neighbours_environment()
        try:
            return super().assert_neighbour_well()
        finally:
            self.environment = here

    def end_neighbour(self):
        self.neighbours_environment()
        super().end_neighbour()

    def fill(self, place):
        try:
            with open(os.path.join(place, ".ballast"), "wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
        except OSError as error:
            self.assertEqual(error.errno, errno.ENOSPC)
        system = os.statvfs(place)
        self.assertEqual(system.f_bfree * system.f_ffree, 0, "it is full, of blocks or of files")

    def empty(self, place):
        os.unlink(os.path.join(place, ".ballast"))

    def assert_whole_or_absent(self, place, name="vm"):
        folder = os.path.join(place, name)
        outcome = read(os.path.join(folder, "exit.json"))
        if outcome:
            self.assertIn("outcome", json.loads(outcome))
        if os.path.isdir(folder):
            self.assertEqual([file for file in os.listdir(folder) if file.endswith(".new")], [])
            self.assertFalse(os.path.exists(os.path.join(folder, "exit.json")) and not outcome, "an empty outcome")

    def detached_fake(self, *arguments, kernel="loop"):
        self.check("run", "--backend", "fake", "--name", "vm", "--detach", "--memory", "8M", "--kernel", guest(kernel),
                   *arguments)

    def listed(self):
        return [row["name"] for row in self.check("ps", "-a", "--json").json]

    def remount(self, place, flags):
        mount(place, "", MS_REMOUNT | flags)

    def test_full_state_does_not_stop_a_guest(self):
        place = self.tiny("state", "size=64k")
        self.fill(place)
        result = self.run_vmmhost("run", "--backend", "fake", "--name", "vm", "--memory", "8M", "--kernel",
                                  guest("flood"))
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, flood_lines())
        self.assert_whole_or_absent(place)
        self.assertEqual(self.listed(), ["neighbour", "vm"])
        self.empty(place)
        self.check("rm", "vm")
        self.assertEqual(os.listdir(place), [])

    def test_state_that_fills_up_while_a_guest_runs(self):
        place = self.tiny("state", "size=64k")
        self.detached_fake(kernel="serial_echo")
        self.fill(place)
        for verb in ("pause", "resume", "reset"):
            self.check(verb, "vm")
        self.assertIn("running", self.check("ps").out)
        self.check("stop", "vm")
        self.assert_whole_or_absent(place)
        self.assertEqual(self.listed(), ["neighbour", "vm"])
        self.assertEqual(self.run_vmmhost("wait", "vm").code, 125 if not read(f"{place}/vm/exit.json") else 143)
        self.empty(place)
        self.check("rm", "vm")
        self.assertEqual(os.listdir(place), [])

    def test_logs_that_fill_the_state_themselves(self):
        place = self.tiny("state", "size=16k")
        result = self.run_vmmhost("run", "--backend", "fake", "--name", "vm", "--memory", "8M", "--kernel",
                                  guest("flood"))
        self.assertEqual((result.code, result.out), (0, flood_lines()), result.err)
        self.assert_whole_or_absent(place)
        kept = self.check("logs", "vm").out
        self.assertTrue(0 < len(kept) < 16 << 10, f"{len(kept)} bytes of 32 KiB")
        self.check("rm", "vm")
        self.assertEqual(os.listdir(place), [])

    def test_state_without_room_for_a_folder_is_named(self):
        place = self.tiny("state", "size=64k,nr_inodes=1")
        result = self.run_vmmhost("run", "--backend", "fake", "--name", "vm", "--kernel", guest("hello"))
        self.assertEqual(result.code, 125)
        self.assertIn(place, result.err)
        self.assertIn("No space left on device", result.err)
        self.assertEqual(os.listdir(place), [])

    def test_full_runtime_is_named_and_nothing_starts(self):
        for options in ("size=64k,nr_inodes=1", "size=64k,nr_inodes=3", "size=64k,nr_inodes=5", "size=4k"):
            with self.subTest(options):
                place = self.tiny("runtime", options)
                self.fill(place)
                result = self.run_vmmhost("run", "--backend", "fake", "--name", "vm", "--kernel", guest("hello"))
                self.assertEqual(result.code, 125, result.err)
                self.assertIn("No space left on device", result.err)
                self.assertEqual([name for name in os.listdir(place) if not name.startswith(".")], [])
        self.assert_neighbour_well()

    def test_runtime_that_fills_up_while_a_guest_runs(self):
        place = self.tiny("runtime", "size=64k")
        self.detached_fake()
        self.fill(place)
        self.assertIn("running", self.check("ps").out)
        for verb in ("pause", "resume", "stop", "rm"):
            self.check(verb, "vm")
        self.assertEqual([name for name in os.listdir(place) if not name.startswith(".")], [])

    def test_read_only_state_is_named(self):
        place = self.tiny("state", "size=64k")
        self.remount(place, MS_RDONLY)
        result = self.run_vmmhost("run", "--backend", "fake", "--name", "vm", "--kernel", guest("hello"))
        self.assertEqual(result.code, 125)
        self.assertIn(place, result.err)
        self.assertIn("Read-only file system", result.err)
        self.check("ps", "-a")

    def test_state_that_becomes_read_only_while_a_guest_runs(self):
        place = self.tiny("state", "size=64k")
        self.detached_fake()
        # A read-only view laid over it: its logs are open for writing, and a remount would refuse. The supervisor holds
        # the folder below and goes on writing there; every command sees the view.
        called(libc.mount(place.encode(), place.encode(), None, 4096, None))
        called(libc.mount(None, place.encode(), None, MS_REMOUNT | 4096 | MS_RDONLY, None))
        self.check("pause", "vm")
        self.check("stop", "vm")
        self.assertEqual(self.listed(), ["neighbour", "vm"])
        result = self.run_vmmhost("rm", "vm")
        self.assertEqual(result.code, 125, result.out)
        self.assertIn("Read-only file system", result.err)
        called(libc.umount2(place.encode(), 0))
        self.assert_whole_or_absent(place)
        self.check("rm", "vm")
        self.assertEqual(os.listdir(place), [])


if __name__ == "__main__":
    unittest.main()
