"""worker-kvm boots what distributions ship: kernels, and both forms of their files."""
import hashlib
import os
import re
import unittest

from lab_harness import LINUX_TIMEOUT, LabTest, command_line, kernel, kernel_release

# Every pair of kernel, form and number of processors.
BOOTS = (("cloud", "vmlinux", 1), ("cloud", "vmlinuz", 2), ("cloud", "vmlinux", 4), ("generic", "vmlinuz", 1),
         ("generic", "vmlinux", 2), ("generic", "vmlinuz", 4), ("current", "vmlinux", 1), ("current", "vmlinuz", 2),
         ("current", "vmlinux", 4))
RAW_LINE = re.compile(r"^<(\d+)>\[[ .\d]+\] (.*)$")
WARNING = 4  # of the kernel's levels; those below are graver
COMPLAINTS = "BUG:|WARNING:|Call Trace|ACPI (BIOS )?(Error|Warning|Exception)|Firmware Bug|unhandled"
# Not all messages: a port that carries bytes one by one takes as long for them as the boot does.
LOOK = ("uname -r; echo cpus=$(nproc); echo kib=$(grep MemTotal /proc/meminfo | tr -dc 0-9); "
        f"echo messages=$(dmesg | wc -l); dmesg | grep -v 'ommand line: ' | grep -iE '{COMPLAINTS}' | sed 's/^/complaint: /'")
GRAVE = "echo messages=$(dmesg | wc -l); dmesg -r | grep '^<[0-9]*[0-4]>'"


class Boot(LabTest):
    def test_kernels_forms_and_processors(self):
        for name, form, cpus in BOOTS:
            with self.subTest(f"{name} {form} {cpus}"):
                said = self.boot_linux(name, LOOK, "--cpus", str(cpus), image=form)
                lines = said.splitlines()
                self.assertIn(kernel_release(name), lines)
                self.assertIn(f"cpus={cpus}", lines)
                kib = int(re.search(r"^kib=(\d+)$", said, re.M).group(1))
                self.assertGreater(kib, 185 * 1024)
                self.assertEqual([line for line in lines if line.startswith("complaint:")], [])
                self.has_messages(said)

    def has_messages(self, said):
        self.assertGreater(int(re.search(r"^messages=(\d+)\r?$", said, re.M).group(1)), 100)

    def complaints(self, said):
        """What a kernel said as a warning or worse, without numbers."""
        self.has_messages(said)
        found = list(filter(None, map(RAW_LINE.match, said.replace("\r", "").splitlines())))
        return {re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "N", match.group(2)) for match in found
                if int(match.group(1)) & 7 <= WARNING}

    def test_kernels_complain_of_nothing_that_qemu_does_not_have(self):
        for name in ("cloud", "current"):
            with self.subTest(name):
                _, theirs = self.seconds_until(
                    ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
                     "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel(name),
                     "-initrd", kernel(name, "initramfs.cpio"), "-append", command_line(GRAVE)],
                    "vmmhost-guest: exit status")
                ours = self.boot_linux(name, GRAVE)
                ours, theirs = self.complaints(ours), self.complaints(theirs)
                print(f"{name}: {len(ours)} complaints, with QEMU {len(theirs)}")
                self.assertEqual(sorted(ours - theirs), [])

    def test_timings_reach_from_exec_to_init(self):
        """The guest kit's init writes to the boot-timer port before anything else."""
        for form in ("vmlinux", "vmlinuz"):
            result = self.check("run", "--rm", "--json", "--timings",
                                *self.linux_arguments("cloud", "true", image=form), timeout=LINUX_TIMEOUT)
            phases = {timing["phase"]: timing["ns"] for timing in result.json["timings"]}
            self.assertLess(phases["guest-runs"], phases["guest-init"], phases)
            self.assertLess(phases["guest-init"], phases["guest-ended"], phases)
            self.assertRegex(result.err, r"guest-init +[\d.]+")
            print(result.err)

    def test_memory_beyond_the_gap_is_seen(self):
        said = self.boot_linux("cloud", LOOK, memory="3584M")
        self.assertGreater(int(re.search(r"^kib=(\d+)$", said, re.M).group(1)), 3400 * 1024)

    def test_smallest_memory(self):
        self.assertIn("cpus=1", self.boot_linux("cloud", LOOK, memory="128M"))


class Devices(LabTest):
    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_disks_carry_what_is_on_them_both_ways(self):
        content = os.urandom(3 << 20)
        source, target = self.file("source.img", content), self.file("target.img", bytes(4 << 20))
        said = self.boot_linux(
            "cloud", "sha256sum /dev/vda; dd if=/dev/vda of=/dev/vdb bs=64k conv=fsync 2>/dev/null; "
            "echo x >/dev/vda && echo wrote || echo refused; cat /sys/block/vdb/serial; echo; "
            "blkdiscard -o 3145728 -l 1048576 /dev/vdb 2>/dev/null; head -c 16 /dev/hwrng | wc -c",
            "-f", self.file("vm.json", b'{"disks":[{"file":"%s","readOnly":true},'
                                           b'{"file":"%s","serial":"twenty-bytes-serial"}],"rng":{}}'
                                           % (source.encode(), target.encode())))
        self.assertIn(hashlib.sha256(content).hexdigest(), said)
        self.assertIn("refused", said)
        self.assertIn("twenty-bytes-serial", said)
        self.assertIn("16", said.splitlines())
        with open(target, "rb") as file:
            self.assertEqual(hashlib.sha256(file.read(len(content))).hexdigest(), hashlib.sha256(content).hexdigest())
        with open(source, "rb") as file:
            self.assertEqual(file.read(), content)

    def test_panic_is_a_panic(self):
        arguments = self.linux_arguments("cloud", "echo c >/proc/sysrq-trigger; sleep 100")
        result = self.check("run", "--rm", "--json", *arguments, code=1, timeout=LINUX_TIMEOUT)
        self.assertEqual(result.json["outcome"]["cause"], "panic", result.out)

    def test_watchdog_that_is_not_fed(self):
        """Fed once in 100 s, while it waits for 4. Kernels for clouds have no driver for it."""
        arguments = self.linux_arguments("generic", "watchdog -T 4 -t 100 -F /dev/watchdog", "-f",
                                         self.config(watchdog={"action": "powerOff"}))
        result = self.check("run", "--rm", "--json", *arguments, code=1, timeout=LINUX_TIMEOUT)
        self.assertEqual(result.json["outcome"]["cause"], "watchdog", result.out)

    def test_worker_stays_small(self):
        arguments = self.linux_arguments("cloud", "true")
        result = self.check("run", "--rm", "--json", *arguments, timeout=LINUX_TIMEOUT)
        used = int(result.json["workerPrivateBytes"])
        self.assertGreater(used, 0)
        self.assertLessEqual(used, 9 << 19)
        print(f"private memory of the worker with stock Linux: {used / (1 << 20):.2f} MiB")


if __name__ == "__main__":
    unittest.main()
