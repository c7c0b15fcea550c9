"""What tests in the lab stand on: tests/e2e/harness.py, the kernels of tests/lab/kernels, and room for slowness.

A test is a class of tests/lab/test_*.py and a line of CMakeLists.txt; README.md shows one whole. Environment, besides
what tests/e2e/harness.py wants: VMMHOST_LAB_KERNELS, the folder that has a folder for each kernel.
"""
import json
import os
import subprocess
import sys
import time
import unittest
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(HERE)), "guest"))
import batch  # noqa: E402
import harness  # noqa: E402
import newc  # noqa: E402
from harness import LONG, VmmhostTest, guest, private_bytes, wait_until  # noqa: E402,F401  (for the tests)

# A boot of stock Linux takes 6 s in the lab, and many times that beside a build that keeps every core busy.
LINUX_TIMEOUT = 300
REFERENCE_STARTS, REFERENCE_TIMEOUT = 2, 200  # of another VMM: 10 s here, 150 s on a machine 12 times slower
# Private memory of worker-kvm besides guest RAM, on a KVM that is hardware as far as it can tell.
harness.MAX_WORKER_PRIVATE = 9 << 19  # 4.5 MiB
harness.DEADLINE = 180


def kernel(name, file="vmlinux"):
    """A file of one of the kernels of tests/lab/kernels: vmlinux, vmlinuz, initramfs.cpio or kernel-version."""
    if name in os.environ.get("VMMHOST_LAB_MISSING", "").split():
        raise unittest.SkipTest(f"kernel {name} is not to be had here: lab.machine says why")
    path = os.path.join(os.environ["VMMHOST_LAB_KERNELS"], name, file)
    if not os.path.exists(path):
        raise AssertionError(f"tests/lab/kernels makes {path}")
    return path


def kernel_release(name):
    """What uname -r says in a guest with it."""
    with open(kernel(name, "kernel-version"), encoding="ascii") as file:
        return file.read().strip()


def command_line(command=None, *words):
    """The kernel's, for a guest that runs `command` and powers off; a shell on the console without one."""
    words = ["console=ttyS0", "quiet", "panic=-1", "cryptomgr.notests", *words]
    if command is not None:
        words.append("vmmhost.run=" + urllib.parse.quote(command, safe=""))
    return " ".join(words)


def probe():
    """tests/guests/linux/probe.c, for a guest and for its host."""
    return os.path.join(os.environ["VMMHOST_GUESTS"], "probe")


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


class LabTest(VmmhostTest):
    def setUp(self):
        self.assertEqual(os.environ.get("VMMHOST_LAB"), "1", "not in the lab: tests/lab/run starts it")
        super().setUp()

    def linux_arguments(self, name, command, *more, image="vmlinux", memory="256M", words=(), with_probe=False):
        """What follows `vmmhost run` to boot kernel `name` on the kvm backend with the guest kit's initramfs."""
        initrd = self.initramfs_with_probe(name) if with_probe else kernel(name, "initramfs.cpio")
        return ("--backend", "kvm", "--timeout", str(LINUX_TIMEOUT), "--memory", memory, "--kernel", kernel(name, image),
                "--initrd", initrd, "--cmdline", command_line(command, *words), *more)

    def initramfs_with_probe(self, name):
        """The kernel unpacks one archive after the other: /bin/probe comes on top."""
        path = os.path.join(self.folder, name + "-probe.cpio")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(read_file(kernel(name, "initramfs.cpio")))
                archive = newc.Archive(file)
                archive.file("bin/probe", read_file(probe()), 0o755)
                archive.finish()
        return path

    def config(self, **members):
        """A file with these members of a VM's configuration."""
        self.configs = getattr(self, "configs", 0) + 1
        path = os.path.join(self.folder, f"vm{self.configs}.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump(members, file)
        return path

    def boot_linux(self, name, command, *more, code=0, **options):
        """Boots it, runs `command` in it, and gives the console's text; fails unless the exit code is `code`."""
        result = self.check("run", "--rm", *self.linux_arguments(name, command, *more, **options), code=code,
                            timeout=LINUX_TIMEOUT + 30)
        return result.out.replace("\r", "")

    def seconds_until(self, arguments, text, seconds):
        """Runs any program until `text` is in its output, and ends it: the seconds from its start, and the output."""
        began = time.monotonic()
        with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              cwd=self.folder) as process:
            try:
                seen = self.read_until(process, text, seconds)
                return time.monotonic() - began, seen
            finally:
                process.kill()

    def reference_until(self, arguments, text):
        """What another VMM says until `text`. It is the measure here and not what is tried: now and then QEMU's boots
        stand still in a machine of the lab. So it gets more than one start, and if none comes to its end, the batch runs
        the test in another machine (batch.py). Each that failed is told."""
        for left in reversed(range(REFERENCE_STARTS)):
            try:
                return self.seconds_until(arguments, text, REFERENCE_TIMEOUT)
            except AssertionError as error:
                if not left:
                    with open(batch.UNFIT, "wb"):
                        raise
                print(f"{arguments[0]} did not come to its end: {error}")
