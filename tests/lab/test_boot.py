"""worker-kvm boots what distributions ship: kernels, and both forms of their files."""
import hashlib
import os
import re
import unittest

from lab_harness import LINUX_TIMEOUT, LONG, LabTest, command_line, kernel, kernel_release

# Kernel, form, number of processors, memory. With VMMHOST_TEST_LONG=1 every pair of the first three; else each of them
# at least once, and the ends of memory. What is asked of boots is read off the same ones, as a boot is what costs here.
EVERY_PAIR = (("cloud", "vmlinux", 1, "256M"), ("cloud", "vmlinuz", 2, "256M"), ("cloud", "vmlinux", 4, "256M"),
              ("generic", "vmlinuz", 1, "256M"), ("generic", "vmlinux", 2, "256M"), ("generic", "vmlinuz", 4, "256M"),
              ("current", "vmlinux", 1, "256M"), ("current", "vmlinuz", 2, "256M"), ("current", "vmlinux", 4, "256M"),
              ("cloud", "vmlinux", 1, "128M"), ("cloud", "vmlinux", 1, "3584M"))
EACH_ONCE = (("cloud", "vmlinuz", 2, "128M"), ("generic", "vmlinux", 4, "3584M"), ("current", "vmlinux", 1, "256M"))
BOOTS = EVERY_PAIR if LONG else EACH_ONCE
SMALLEST, BEYOND_THE_GAP = "128M", "3584M"
LEAST_KIB = {"128M": 60 * 1024, "256M": 185 * 1024, "3584M": 3400 * 1024}
RAW_LINE = re.compile(r"^<(\d+)>\[[ .\d]+\] (.*)$")
WARNING = 4  # of the kernel's levels; those below are graver
COMPLAINTS = "BUG:|WARNING:|Call Trace|ACPI (BIOS )?(Error|Warning|Exception)|Firmware Bug|unhandled"
# Not all messages: a port that carries bytes one by one takes as long for them as the boot does.
LOOK = ("uname -r; echo cpus=$(nproc); echo kib=$(grep MemTotal /proc/meminfo | tr -dc 0-9); "
        f"echo messages=$(dmesg | wc -l); dmesg | grep -v 'ommand line: ' | grep -iE '{COMPLAINTS}' | "
        "sed 's/^/complaint: /'; dmesg -r | grep '^<[0-9]*[0-4]>'")


class Boot(LabTest):
    seen = {}  # (text of the console and the command's timings, its JSON) of each boot, for all tests

    def boot(self, *row):
        if row not in self.seen:
            name, form, cpus, memory = row
            result = self.check("run", "--rm", "--json", "--timings",
                                *self.linux_arguments(name, LOOK, "--cpus", str(cpus), image=form, memory=memory),
                                timeout=LINUX_TIMEOUT + 30)
            self.seen[row] = result.err.replace("\r", ""), result.json
        return self.seen[row]

    def said_with(self, memory):
        return self.boot(*next(row for row in BOOTS if row[3] == memory))[0]

    def kib(self, said):
        return int(re.search(r"^kib=(\d+)$", said, re.M).group(1))

    def has_messages(self, said):
        self.assertGreater(int(re.search(r"^messages=(\d+)$", said, re.M).group(1)), 100)

    def test_kernels_forms_and_processors(self):
        for row in BOOTS:
            with self.subTest(row):
                name, _, cpus, memory = row
                said, _ = self.boot(*row)
                lines = said.splitlines()
                self.assertIn(kernel_release(name), lines)
                self.assertIn(f"cpus={cpus}", lines)
                self.assertGreater(self.kib(said), LEAST_KIB[memory])
                self.assertEqual([line for line in lines if line.startswith("complaint:")], [])
                self.has_messages(said)

    def complaints(self, said):
        """What a kernel said as a warning or worse, without numbers."""
        self.has_messages(said)
        found = list(filter(None, map(RAW_LINE.match, said.splitlines())))
        return {re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "N", match.group(2)) for match in found
                if int(match.group(1)) & 7 <= WARNING}

    def test_kernels_complain_of_nothing_that_qemu_does_not_have(self):
        for name in ("cloud", "current") if LONG else ("current",):
            with self.subTest(name):
                _, theirs = self.reference_until(
                    ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
                     "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel(name),
                     "-initrd", kernel(name, "initramfs.cpio"), "-append", command_line(LOOK)],
                    "vmmhost-guest: exit status")
                ours, _ = self.boot(name, "vmlinux", 1, "256M")
                ours, theirs = self.complaints(ours), self.complaints(theirs.replace("\r", ""))
                print(f"{name}: {len(ours)} complaints, with QEMU {len(theirs)}")
                self.assertEqual(sorted(ours - theirs), [])

    def test_timings_reach_from_exec_to_init(self):
        """The guest kit's init writes to the boot-timer port before anything else."""
        self.assertEqual({form for _, form, _, _ in BOOTS}, {"vmlinux", "vmlinuz"})
        for row in BOOTS:
            with self.subTest(row):
                said, told = self.boot(*row)
                phases = {timing["phase"]: timing["ns"] for timing in told["timings"]}
                self.assertLess(phases["guest-runs"], phases["guest-init"], phases)
                self.assertLess(phases["guest-init"], phases["guest-ended"], phases)
                self.assertRegex(said, r"guest-init +[\d.]+")
                print(f"{row}: init after {(phases['guest-init'] - phases['guest-runs']) / 1e9:.1f} s")

    def test_memory_beyond_the_gap_is_seen(self):
        self.assertGreater(self.kib(self.said_with(BEYOND_THE_GAP)), 3400 * 1024)

    def test_smallest_memory(self):
        self.assertIn("cpus=", self.said_with(SMALLEST))

    def test_worker_stays_small(self):
        for row in BOOTS:
            with self.subTest(row):
                used = int(self.boot(*row)[1]["workerPrivateBytes"])
                self.assertGreater(used, 0)
                self.assertLessEqual(used, 9 << 19)
                print(f"private memory of the worker with {row}: {used / (1 << 20):.2f} MiB")


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


if __name__ == "__main__":
    unittest.main()
