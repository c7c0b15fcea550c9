"""Stock Linux: the Debian cloud kernel and the guest kit's initramfs, on qemu, which translates anywhere."""
import hashlib
import os
import unittest
import urllib.parse

from harness import GUEST_KIT, VmmhostTest, wait_until

TIMEOUT = "120"


class Linux(VmmhostTest):
    def setUp(self):
        super().setUp()
        for name in ("vmlinux", "initramfs.cpio"):
            self.assertTrue(os.path.exists(os.path.join(GUEST_KIT, name)), f"guest/build makes {GUEST_KIT}/{name}")

    def arguments(self, command, *more, kernel="vmlinux"):
        cmdline = "console=ttyS0 quiet"
        if command:
            cmdline += " vmmhost.run=" + urllib.parse.quote(command, safe="")
        return ("--backend", "qemu", "--timeout", TIMEOUT, "--memory", "256M", "--kernel",
                os.path.join(GUEST_KIT, kernel), "--initrd", os.path.join(GUEST_KIT, "initramfs.cpio"), "--cmdline",
                cmdline, *more)

    def boot(self, command, *more, **options):
        return self.check("run", "--rm", *self.arguments(command, *more, **options), timeout=150)

    def test_elf_kernel_sees_what_was_configured(self):
        out = self.boot("nproc; grep MemTotal /proc/meminfo; uname -r; echo $((6*7))", "--cpus", "2").out
        lines = out.replace("\r", "").splitlines()
        self.assertIn("2", lines)
        self.assertIn("42", lines)
        with open(os.path.join(GUEST_KIT, "kernel-version")) as file:
            self.assertIn(file.read().strip(), lines)
        kib = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
        self.assertGreater(kib, 180 * 1024)
        self.assertLess(kib, 256 * 1024)

    def test_bzimage_boots(self):
        self.assertIn("42", self.boot("echo $((6*7))", kernel="vmlinuz").out)

    def test_disks_are_written_read_and_kept_read_only(self):
        made = os.path.join(self.folder, "made")
        content = os.urandom(1 << 20)
        with open(made, "wb") as file:
            file.write(content)
        written = os.path.join(self.folder, "written")
        with open(written, "wb") as file:
            file.truncate(1 << 20)
        out = self.boot("sha256sum /dev/vda; cat /proc/1/stat >/dev/null; dd if=/dev/vda of=/dev/vdb bs=64k 2>&1; sync; "
                        "echo x >/dev/vda && echo wrote || echo refused", "--disk", made + ",ro", "--disk", written).out
        self.assertIn(hashlib.sha256(content).hexdigest(), out)
        self.assertIn("refused", out)
        with open(written, "rb") as file:
            self.assertEqual(file.read(), content)
        with open(made, "rb") as file:
            self.assertEqual(file.read(), content)

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
        wait_until(lambda: "a shell" in self.check("logs", "tux").out, 90, "the guest is up")
        self.check("shutdown", "tux", timeout=100)
        self.assertEqual(self.run_vmmhost("wait", "tux", timeout=100).code, 0)
        self.check("rm", "tux")

    def test_reboot_exits_3(self):
        result = self.run_vmmhost("run", "--rm", *self.arguments("reboot -f"), timeout=150)
        self.assertEqual(result.code, 3, result.err)


if __name__ == "__main__":
    unittest.main()
