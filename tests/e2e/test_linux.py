"""Stock Linux: the Debian cloud kernel and the guest kit's initramfs, on qemu, which translates anywhere. The same on kvm:
tests/lab/test_alike.py."""
import ctypes
import fcntl
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest
import urllib.parse

import images
from harness import GUEST_KIT, VmmhostTest, read, wait_until


class LinuxTest(VmmhostTest):
    backend = "qemu"
    limit = 300  # seconds for a guest

    def setUp(self):
        super().setUp()
        for name in ("vmlinux", "initramfs.cpio"):
            self.assertTrue(os.path.exists(os.path.join(GUEST_KIT, name)), f"guest/build makes {GUEST_KIT}/{name}")

    def arguments(self, command, *more, kernel="vmlinux"):
        # Linux gives the timer 40 ms to show itself, which a guest that waits for a processor does not have.
        cmdline = "console=ttyS0 quiet no_timer_check"
        if command:
            cmdline += " vmmhost.run=" + urllib.parse.quote(command, safe="")
        return ("--backend", self.backend, "--timeout", str(self.limit), "--memory", "256M", "--kernel",
                os.path.join(GUEST_KIT, kernel), "--initrd", os.path.join(GUEST_KIT, "initramfs.cpio"), "--cmdline",
                cmdline, *more)

    def boot(self, command, *more, **options):
        return self.check("run", "--rm", *self.arguments(command, *more, **options), timeout=self.limit + 30)


class Linux(LinuxTest):
    """Two boots serve several tests each: they are what costs."""
    outcomes = {}
    image_format = "qcow2"  # "raw" for a backend that knows no other

    def once(self, boot):
        """What a boot gave to the first test that asked."""
        key = type(self), boot.__name__
        if key not in self.outcomes:
            self.outcomes[key] = boot()
        return self.outcomes[key]

    def elf_with_disks(self):
        made, written = os.path.join(self.folder, "made"), os.path.join(self.folder, "written")
        content = os.urandom(1 << 20)
        with open(made, "wb") as file:
            file.write(content)
        with open(written, "wb") as file:
            file.truncate(len(content))
        out = self.boot("nproc; grep MemTotal /proc/meminfo; uname -r; echo $((6*7)); sha256sum /dev/vda; "
                        "dd if=/dev/vda of=/dev/vdb bs=64k 2>&1; sync; echo x >/dev/vda && echo wrote || echo refused",
                        "--cpus", "2", "--disk", made + ",ro", "--disk", written).out
        return out.replace("\r", ""), content, read(made), read(written)

    def bzimage_that_reboots(self):
        return self.run_vmmhost("run", "--rm", *self.arguments("echo $((6*7)); reboot -f", kernel="vmlinuz"),
                                timeout=self.limit + 30)

    def test_elf_kernel_sees_what_was_configured(self):
        lines = self.once(self.elf_with_disks)[0].splitlines()
        self.assertIn("2", lines)
        self.assertIn("42", lines)
        with open(os.path.join(GUEST_KIT, "kernel-version")) as file:
            self.assertIn(file.read().strip(), lines)
        kib = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
        self.assertGreater(kib, 180 * 1024)
        self.assertLess(kib, 256 * 1024)

    def test_disks_are_written_read_and_kept_read_only(self):
        out, content, made, written = self.once(self.elf_with_disks)
        self.assertIn(hashlib.sha256(content).hexdigest(), out)
        self.assertIn("refused", out)
        self.assertEqual(written, content)
        self.assertEqual(made, content)

    def test_bzimage_boots(self):
        self.assertIn("42", self.once(self.bzimage_that_reboots).out.replace("\r", "").splitlines())

    def test_reboot_exits_3(self):
        result = self.once(self.bzimage_that_reboots)
        self.assertEqual(result.code, 3, result.err)

    def test_disks_are_written_to_their_last_sector(self):
        """More than any limit that does not know the disks would let through: an image that grows, and a raw one."""
        image, raw, config = (os.path.join(self.folder, name) for name in ("image", "raw", "vm.json"))
        size = 300 << 20
        if self.image_format == "qcow2":
            images.make_qcow2(image, size)
        else:
            with open(image, "wb") as file:
                file.truncate(size)
        with open(raw, "wb") as file:
            file.truncate(size + 512)
        with open(config, "w") as file:
            json.dump({"disks": [{"file": image, "format": self.image_format}, {"file": raw}]}, file)
        out = self.boot("dd if=/dev/zero of=/dev/vda bs=1M count=300 conv=fsync && echo filled; echo last | "
                        f"dd of=/dev/vdb bs=512 seek={size // 512} conv=sync,fsync && echo written", "-f", config).out
        lines = out.replace("\r", "").splitlines()
        self.assertIn("filled", lines)
        self.assertIn("written", lines)
        status = os.stat(image)
        if self.image_format == "qcow2":
            self.assertGreater(status.st_size, size)
            most = images.most_bytes(size)
        else:
            self.assertEqual(status.st_size, size)
            most = size
        self.assertLessEqual(status.st_size, most)
        self.assertLessEqual(status.st_blocks * 512, most + status.st_blksize)
        self.assertEqual(os.stat(raw).st_size, size + 512)
        with open(raw, "rb") as file:
            file.seek(size)
            self.assertEqual(file.read(5), b"last\n")

    def test_disk_in_use_is_refused(self):
        disk = os.path.join(self.folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        self.check("run", "--detach", "--name", "holder", *self.arguments("", "--disk", disk))
        result = self.run_vmmhost("run", "--rm", *self.arguments("true", "--disk", disk))
        self.assertEqual(result.code, 125, result.err)
        self.assertIn("in use by another VM", result.err)
        self.check("rm", "-f", "holder")

    def test_power_button_ends_it(self):
        self.check("run", "--detach", "--name", "tux", *self.arguments(""))
        wait_until(lambda: "a shell" in self.check("logs", "tux").out, self.limit, "the guest is up")
        self.check("shutdown", "tux", timeout=self.limit)
        self.assertEqual(self.run_vmmhost("wait", "tux", timeout=self.limit).code, 0)
        self.check("rm", "tux")


@unittest.skipUnless(os.geteuid() == 0, "a network of its own and TAP devices need root")
class Devices(LinuxTest):
    """One guest with every device that a configuration file can ask for, on a TAP device in a network of its own."""
    CLONE_NEWNET = 0x40000000
    TUNSETIFF, TUNSETPERSIST, IFF_TAP, IFF_NO_PI = 0x400454ca, 0x400454cb, 0x0002, 0x1000
    GUEST = ("ifconfig eth0 10.9.0.1 up; ifconfig eth1 up; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; "
             "echo carrier $(cat /sys/class/net/eth0/carrier) $(cat /sys/class/net/eth1/carrier); "
             "ping -c 1 -w 60 10.9.0.9; nc 10.9.0.9 99 | sha256sum; stty -F /dev/hvc1 raw -echo; "
             "nc 10.9.0.9 98; busybox awk 'BEGIN { for (i = 1; i <= 2000; i++) printf \"%060d\\n\", i }' >/dev/hvc0; "
             "echo ready >/dev/hvc1; read line </dev/hvc1; "
             "echo typed $line; grep MemTotal /proc/meminfo")

    def setUp(self):
        super().setUp()
        if ctypes.CDLL(None, use_errno=True).unshare(self.CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        with open("/dev/net/tun", "r+b", buffering=0) as tap:
            fcntl.ioctl(tap, self.TUNSETIFF, struct.pack("16sH22x", b"tap0", self.IFF_TAP | self.IFF_NO_PI))
            fcntl.ioctl(tap, self.TUNSETPERSIST, 1)
        for words in ("link set tap0 mtu 1400", "addr add 10.9.0.9/24 dev tap0", "link set tap0 up"):
            subprocess.run(["busybox", "ip", *words.split()], check=True)

    def serve(self, content):
        """To whoever connects first."""
        listener = socket.create_server(("10.9.0.9", 99))

        def serve():
            connection = listener.accept()[0]
            with connection, listener:
                connection.sendall(content)

        threading.Thread(target=serve, daemon=True).start()

    def test_guest_drives_every_device(self):
        content = os.urandom(1 << 20)
        self.serve(content)
        gate = socket.create_server(("10.9.0.9", 98))
        gate.settimeout(self.limit)
        config = os.path.join(self.folder, "vm.json")
        with open(config, "w") as file:
            json.dump({"nics": [{"mac": "52:54:00:00:00:01", "attachment": {"tap": "tap0"}},
                                {"attachment": {"none": None}}],
                       "consoles": [{"kind": "virtio"}, {"kind": "serial"}, {"kind": "virtio"}],
                       "balloon": {"targetSize": "32M", "freePageReporting": True},
                       "watchdog": {"action": "reset"}, "rng": {}}, file)
        self.check("run", "--detach", "--name", "tux", *self.arguments(self.GUEST, "-f", config))
        typing = self.start("console", "tux", "--port", "2")
        supervisor = self.inspect("tux")["supervisorPid"]
        # The guest speaks while nobody listens; all the same nothing of it is lost. It waits for the end of a connection,
        # which does not pass through the supervisor.
        with gate, gate.accept()[0]:
            os.kill(supervisor, signal.SIGSTOP)
        time.sleep(3)  # what is tested: that nobody listens for a while
        os.kill(supervisor, signal.SIGCONT)
        self.read_until(typing, "ready", self.limit)
        self.assertEqual(self.check("logs", "tux", "--port", "0").out, "".join(f"{n:060d}\n" for n in range(1, 2001)))
        for size in ("32M", "64M", "16M", "0"):
            self.check("balloon", "tux", size)
            wait_until(lambda: self.check("balloon", "tux").out == f"target {size}, actual {size}\n", self.limit, size)
        typing.stdin.write(b"on hvc1\n")
        typing.stdin.flush()
        self.assertEqual(self.run_vmmhost("wait", "tux", timeout=self.limit).code, 0)
        said = self.check("logs", "tux", "--port", "1").out
        lines = said.replace("\r", "").splitlines()
        for expected in ("52:54:00:00:00:01", "1400", "carrier 1 0", "typed on hvc1",
                         hashlib.sha256(content).hexdigest() + "  -", "vmmhost-guest: exit status 0"):
            self.assertIn(expected, lines)
        self.assertIn("1 packets received", said)
        kib = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
        self.assertTrue(180 * 1024 < kib < 256 * 1024, f"{kib} KiB once the balloon is empty")
        self.finish(typing)
        self.check("rm", "tux")


if __name__ == "__main__":
    unittest.main()
