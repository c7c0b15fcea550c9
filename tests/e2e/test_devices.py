"""What the command does about further consoles, terminal sizes and balloons, with the backend of tests/fake."""
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import unittest

import harness
from harness import VmmhostTest, guest, kvm_usable, wait_until

FAKE_PLUGINS = os.environ["VMMHOST_FAKE_PLUGINS"]
MIB = 1 << 20
WIDE_DESCRIPTORS = 768  # of worker-kvm with the wide machine, without those of vsock connections


def set_size(terminal, columns, rows):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Devices(VmmhostTest):
    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = FAKE_PLUGINS

    def run_vm(self, **config):
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            json.dump(config, file)
        self.check("run", "--backend", "fake", "--name", "vm", "--detach", "--memory", "64M",
                   "--kernel", guest("serial_echo"), "-f", path)

    def end_vm(self):
        self.check("stop", "vm")

    def test_further_consoles(self):
        self.run_vm(consoles=[{"kind": "serial"}, {"kind": "virtio"}, {"kind": "virtio"}])
        first, second = self.start("console", "vm"), self.start("console", "vm", "--port", "1")
        self.read_until(first, "echo ready")
        self.read_until(second, "console 1")
        second.stdin.write(b"to the second\n")
        second.stdin.flush()
        self.read_until(second, "to the second")
        refused = self.check("console", "vm", "--port", "3", code=127)
        self.assertIn("no console 3", refused.err)
        for wrong in ("-1", "x", "", "1x"):
            self.assertIn("--port", self.check("console", "vm", "--port", wrong, code=125).err)
        self.end_vm()
        self.assertNotIn("second", self.finish(first).out)
        self.assertEqual(self.finish(second).code, 0)
        self.assertEqual(self.check("logs", "vm", "--port", "1").out, "console 1\nto the second\n")
        self.assertEqual(self.check("logs", "vm", "--port", "2").out, "console 2\n")
        self.assertIn("echo ready", self.check("logs", "vm").out)
        self.check("logs", "vm", "--port", "1", "--vmm", code=125)

    def test_terminal_size(self):
        self.run_vm(consoles=[{"kind": "serial"}, {"kind": "virtio"}])
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        set_size(ours, 100, 30)

        def own_terminal():
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(self.command("console", "vm", "--port", "1"), stdin=theirs, stdout=theirs,
                                   stderr=theirs, env=self.environment, cwd=self.folder, preexec_fn=own_terminal)
        self.background.append(process)
        os.close(theirs)
        os.set_blocking(ours, False)
        seen = b""

        def says(text):
            def found():
                nonlocal seen
                try:
                    seen += os.read(ours, 4096)
                except (BlockingIOError, OSError):
                    pass
                return text in seen
            return found

        wait_until(says(b"size 100x30"), 10, "the size when it attaches")
        set_size(ours, 132, 43)  # SIGWINCH for the foreground of the terminal
        wait_until(says(b"size 132x43"), 10, "the new size")
        self.end_vm()
        self.assertEqual(process.wait(10), 0)

    def test_balloon(self):
        self.run_vm(balloon={"targetSize": "8M"})
        self.assertEqual(self.check("balloon", "vm").out, "target 8M, actual 8M\n")
        self.assertEqual(self.check("balloon", "vm", "16M").out, "target 16M, actual 16M\n")
        self.assertEqual(self.check("balloon", "vm", "--json").json,
                         {"name": "vm", "target": 16 * MIB, "actual": 16 * MIB})
        self.assertIn("balloon", self.inspect("vm")["abilities"])
        refused = self.check("balloon", "vm", "65M", code=125)
        self.assertIn("more than the VM's memory", refused.err)
        self.assertIn('"much"', self.check("balloon", "vm", "much", code=125).err)
        self.check("balloon", "vm", "0")
        self.assertEqual(self.check("balloon", "vm", "--json").json["target"], 0)
        self.end_vm()

    def test_no_balloon(self):
        self.run_vm()
        refused = self.check("balloon", "vm", code=125)
        self.assertIn("no balloon", refused.err)
        self.assertNotIn("balloon", self.inspect("vm")["abilities"])
        self.end_vm()


@unittest.skipUnless(kvm_usable(), "no /dev/kvm here that this user may open")
class Wide(VmmhostTest):
    """The machine with 8 of everything on the kvm backend: drivers bring all devices up and reset them in turns, the
    machine itself is reset meanwhile, and paused."""

    def setUp(self):
        super().setUp()
        before = harness.MAX_WORKER_PRIVATE
        harness.MAX_WORKER_PRIVATE = harness.WIDE_WORKER_PRIVATE
        self.addCleanup(setattr, harness, "MAX_WORKER_PRIVATE", before)

    def test_devices_are_reset_and_rebound_in_turns(self):
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            json.dump({"boot": {"kernel": guest("hostile_devices"), "cmdline": "rebinds forever"},
                       "memory": {"size": "64M"}, **harness.wide_machine(self.folder)}, file)
        process = self.start("run", "--backend", "kvm", "--name", "vm", "-f", path, "--json", "--timeout", "240")
        self.wait_until_up(8)
        info = self.inspect("vm")
        if os.geteuid() == 0:
            folder = f"/proc/{info['workerPid']}"
            limit = int(re.search(r"Max open files +(\d+)", harness.read(f"{folder}/limits").decode()).group(1))
            # All numbers below those of vsock connections are taken, and as many as worker-kvm counted on
            # (config/check.cc).
            numbers = sorted(map(int, os.listdir(f"{folder}/fd")))
            self.assertEqual(numbers, list(range(WIDE_DESCRIPTORS)), f"limit {limit}")
            self.assertGreater(limit, WIDE_DESCRIPTORS)
        for _ in range(4):
            self.check("reset", "vm")
            self.check("pause", "vm")
            self.check("resume", "vm")
        self.wait_until_up(16)  # once more, at least
        self.check("stop", "vm")
        outcome = json.loads(self.finish(process, 240).out)["outcome"]
        self.assertEqual(outcome["kind"], "stopped", outcome)
        self.assertNotIn("does not reset", self.check("logs", "vm").out)
        self.check("rm", "vm")

    def wait_until_up(self, count):
        """So many disks and cards, those of all times together."""
        def is_up():
            types = re.findall(r"^virtio ([0-9a-f]+)\r?$", self.run_vmmhost("logs", "vm").out, re.M)
            return types.count("00000002") >= count and types.count("00000001") >= count
        wait_until(is_up, 120, f"{count} disks and cards")


@unittest.skipUnless(kvm_usable(), "no /dev/kvm here that this user may open")
class Disks(VmmhostTest):
    def test_last_sector_is_written_whatever_the_size(self):
        """More than any limit that was chosen for another reason, and no whole number of blocks."""
        for size in (512, MIB, 300 * MIB + 512):
            with self.subTest(size):
                path = os.path.join(self.folder, "disk.img")
                with open(path, "wb") as file:
                    file.truncate(size)
                result = self.check("run", "--backend", "kvm", "--name", "vm", "--memory", "64M", "--kernel",
                                    guest("hostile_devices"), "--cmdline", "write", "--disk", path)
                self.assertIn("written", result.out)
                self.assertEqual(os.path.getsize(path), size)
                with open(path, "rb") as file:
                    file.seek(size - 512)
                    self.assertEqual(file.read(), b"x" * 512)
                    file.seek(0)
                    self.assertEqual(file.read(size - 512).count(b"\0"), size - 512)
                self.check("rm", "vm")
                os.unlink(path)


if __name__ == "__main__":
    unittest.main()
