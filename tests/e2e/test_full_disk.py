"""The file system of a disk has no room: the guest gets an error and runs on, and the host hears of it. Alike on every
backend."""
import ctypes
import os
import unittest

from harness import guest, kvm_usable
from test_linux import LinuxTest

CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 16384, 1 << 18, 2
MIB = 1 << 20
libc = ctypes.CDLL(None, use_errno=True)


def called(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@unittest.skipIf(os.geteuid() != 0, "only root may mount")
class FullDisk(LinuxTest):
    @classmethod
    def setUpClass(cls):
        # A mount namespace of this process, for good: nothing of it reaches the machine's.
        called(libc.unshare(CLONE_NEWNS))
        called(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))

    def setUp(self):
        super().setUp()
        self.place = os.path.join(self.folder, "small")
        os.mkdir(self.place)
        called(libc.mount(b"tmpfs", self.place.encode(), b"tmpfs", 0, b"size=20m"))
        self.disk = os.path.join(self.place, "disk")
        with open(self.disk, "wb") as file:
            file.truncate(64 * MIB)

    def tearDown(self):
        try:
            called(libc.umount2(self.place.encode(), MNT_DETACH))
        finally:
            super().tearDown()

    def fill(self):
        with open(os.path.join(self.place, "ballast"), "wb", buffering=0) as file:
            with self.assertRaises(OSError):
                while file.write(b"x" * 4096):
                    pass

    def assert_told(self, name):
        told = [line for line in self.check("logs", "--vmm", name).out.splitlines() if "file system is full" in line]
        self.assertGreater(len(told), 0)
        self.assertIn(f"disks[0]: {self.disk}: its file system is full", told[0])
        self.assertLessEqual(len(told), 64, "more rarely the longer it lasts")
        self.check("rm", name)

    def test_qemu(self):
        result = self.run_vmmhost("run", "--name", "tux", *self.arguments(
            "dd if=/dev/zero of=/dev/vda bs=1M count=64 conv=fsync && echo written || echo failed; "
            "dd if=/dev/vda of=/dev/null bs=1M count=1 && echo read", "--disk", self.disk), timeout=self.limit + 30)
        self.assertEqual(result.code, 0, result.out + result.err)
        lines = result.out.replace("\r", "").splitlines()
        self.assertIn("failed", lines)
        self.assertIn("read", lines)
        self.assert_told("tux")

    @unittest.skipUnless(kvm_usable(), "no /dev/kvm here that this user may open")
    def test_kvm(self):
        self.fill()
        result = self.run_vmmhost("run", "--backend", "kvm", "--name", "bare", "--memory", "64M", "--kernel",
                                  guest("hostile_devices"), "--cmdline", "write", "--disk", self.disk,
                                  timeout=self.limit)
        self.assertEqual(result.code, 0, result.out + result.err)
        self.assertIn("failed", result.out)
        self.assertIn("done", result.out)
        self.assert_told("bare")


if __name__ == "__main__":
    unittest.main()
