"""Devices of worker-kvm under stock Linux drivers: vsock, network cards, balloon, virtio consoles, clocks."""
import os
import re
import subprocess
import time
import unittest

from lab_harness import LINUX_TIMEOUT, LONG, LabTest, probe, wait_until  # first: it makes harness one that is found
import harness  # noqa: E402

MIB = 1 << 20
# Through vsock, and lines through a network card: what a boot is beside it.
STREAM = (1024 if LONG else 128) * MIB
LINES = 3000000 if LONG else 500000
PAUSE = 10 if LONG else 3  # seconds


def pss(pid):
    """What a process has in memory, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Pss: +(\d+) kB$", file.read(), re.M).group(1)) << 10


class DevicesTest(LabTest):
    def boot(self, name, command, until, *more, **options):
        """Runs `command` in a guest that is left alone: its console, which has said `until`."""
        self.check("run", "--detach", "--name", name, *self.linux_arguments("cloud", command, *more, **options))
        console = self.start("console", name)
        self.read_until(console, until, LINUX_TIMEOUT)
        return console

    def ended(self, name, console, code=0):
        self.assertEqual(self.run_vmmhost("wait", name, timeout=LINUX_TIMEOUT).code, code)
        said = self.finish(console).out
        self.check("rm", name)
        return said

    def worker(self, name):
        return self.inspect(name)["workerPid"]


class Vsock(DevicesTest):
    def stream(self, *arguments):
        return subprocess.Popen([probe(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                cwd=os.path.join(self.folder, "run", "vm"))

    def finish_stream(self, process):
        said = process.communicate(timeout=LINUX_TIMEOUT)[0]
        self.assertEqual(process.returncode, 0, said)
        self.assertIn("all as expected", said)
        print(said.strip())

    def test_both_ways(self):
        much, less = str(STREAM), str(STREAM // 16)
        console = self.boot("vm", "probe listen 5 receive " + much + " && probe listen 6 send " + less +
                            " && probe connect 7 send " + less + " && probe connect 8 receive " + less + "; read x",
                            "listening", "-f", self.config(vsock={}), with_probe=True)
        services = [self.stream("service", "vsock_7", "receive", less), self.stream("service", "vsock_8", "send", less)]
        for service in services:
            self.assertIn("listening", service.stdout.readline())
        self.finish_stream(self.stream("client", "vsock", "5", "send", much))
        self.read_until(console, "listening", LINUX_TIMEOUT)
        self.finish_stream(self.stream("client", "vsock", "6", "receive", less))
        for service in services:
            self.finish_stream(service)
        self.read_until(console, "expected, ", LINUX_TIMEOUT)
        console.stdin.write(b"\n")
        console.stdin.flush()
        said = self.ended("vm", console)
        self.assertIn("exit status 0", said)


class Network(DevicesTest):
    def ip(self, *words):
        subprocess.run(["ip", *words], check=True)

    def setUp(self):
        super().setUp()
        self.ip("link", "add", "br0", "type", "bridge")
        self.addCleanup(self.ip, "link", "del", "br0")
        for tap in ("tap1", "tap2"):
            self.ip("tuntap", "add", "dev", tap, "mode", "tap")
            self.addCleanup(self.ip, "link", "del", tap)
            self.ip("link", "set", tap, "master", "br0", "up")
        self.ip("link", "set", "br0", "up")
        self.ip("addr", "add", "10.9.0.9/24", "dev", "br0")

    def test_two_guests_reach_each_other_and_the_host(self):
        serve = ("ifconfig eth0 10.9.0.1 up && echo is up && nc -l -p 99 | sha256sum; cat /sys/class/net/eth0/mtu; "
                 "cat /sys/class/net/eth0/address; ip link show eth0")
        server = self.boot("server", serve, "is up", "-f",
                           self.config(nics=[{"mac": "52:54:00:00:00:01", "attachment": {"tap": "tap1"}}]))
        said = self.boot_linux("cloud", "ifconfig eth0 10.9.0.2 up; ping -c 3 -w 60 10.9.0.1; ping -c 1 -w 60 10.9.0.9; "
                               f"seq 1 {LINES} >/tmp/x; sha256sum /tmp/x; nc 10.9.0.1 99 </tmp/x; ls -l /tmp/x; dmesg | "
                               "grep -i virtio_net", "-f", self.config(nics=[{"attachment": {"tap": "tap2"}}]))
        self.assertIn("3 packets received", said)
        self.assertIn("1 packets received", said)
        checksum = re.search(r"^([0-9a-f]{64})  /tmp/x$", said, re.M).group(1)
        served = self.ended("server", server)
        self.assertIn(checksum, served)
        self.assertIn("1500", served.replace("\r", "").splitlines())
        self.assertIn("52:54:00:00:00:01", served)

    def test_tap_in_use_is_refused(self):
        config = self.config(nics=[{"attachment": {"tap": "tap1"}}])
        self.check("run", "--detach", "--name", "one", *self.linux_arguments("cloud", None, "-f", config))
        refused = self.run_vmmhost("run", *self.linux_arguments("cloud", None, "-f", config))
        self.assertEqual(refused.code, 125)
        self.assertIn("tap1 is in use", refused.err)
        self.check("rm", "-f", "one")


class Balloon(DevicesTest):
    MEMORY = "512M"
    FILL = "dd if=/dev/zero of=/tmp/fill bs=1M count=200 2>/dev/null; ls -l /tmp/fill; "  # half of memory at most

    def answer(self, console):
        console.stdin.write(b"\n")
        console.stdin.flush()

    def wait_for_size(self, mib):
        wait_until(lambda: int(self.check("balloon", "vm", "--json").json["actual"]) == mib * MIB, LINUX_TIMEOUT,
                   f"a balloon of {mib} MiB")

    def test_balloon_gives_memory_back_and_takes_it_again(self):
        console = self.boot("vm", self.FILL + "rm /tmp/fill; echo was full; read x; free -m; read x", "was full", "-f",
                            self.config(balloon={}), memory=self.MEMORY)
        worker = self.worker("vm")
        full = pss(worker)
        self.assertGreater(full, 200 * MIB)
        self.check("balloon", "vm", "350M")
        self.wait_for_size(350)
        small = pss(worker)
        self.assertLess(small, full - 100 * MIB)
        print(f"guest's memory at the host: {full // MIB} MiB, with a balloon of 350 MiB {small // MIB} MiB")
        self.check("balloon", "vm", "0")
        self.wait_for_size(0)
        self.answer(console)
        total = int(re.search(r"^Mem: +(\d+)", self.read_until(console, "Swap", LINUX_TIMEOUT), re.M).group(1))
        self.assertGreater(total, 440)
        self.answer(console)
        self.ended("vm", console)

    def test_free_pages_are_reported(self):
        console = self.boot("vm", self.FILL + "rm /tmp/fill; echo was full; read x", "was full", "-f",
                            self.config(balloon={"freePageReporting": True}), memory=self.MEMORY)
        worker = self.worker("vm")
        wait_until(lambda: pss(worker) < 180 * MIB, LINUX_TIMEOUT, "memory falls")
        print(f"guest's memory at the host once it told what is free: {pss(worker) // MIB} MiB of 512")
        self.answer(console)
        self.ended("vm", console)

    def test_a_guest_out_of_memory_takes_it_back(self):
        console = self.boot("vm", "echo is up; read x; " + self.FILL + "read x", "is up", "-f",
                            self.config(balloon={"targetSize": "330M"}), memory=self.MEMORY)
        self.wait_for_size(330)
        self.answer(console)
        self.assertIn(str(200 * MIB), self.read_until(console, "/tmp/fill", LINUX_TIMEOUT))
        self.answer(console)
        self.ended("vm", console)


class Consoles(DevicesTest):
    def test_virtio_consoles(self):
        config = self.config(consoles=[{"kind": "serial"}, {"kind": "virtio"}, {"kind": "virtio"}])
        console = self.boot("vm", "echo first >/dev/hvc0; echo second >/dev/hvc1; echo said; read x </dev/hvc1; "
                            "echo heard $x; dd if=/dev/zero bs=1k count=512 2>/dev/null | tr '\\0' z >/dev/hvc0",
                            "said", "-f", config)
        self.assertIn("second", self.check("logs", "vm", "--port", "2").out)
        port = self.start("console", "vm", "--port", "2")
        port.stdin.write(b"words\n")
        port.stdin.flush()
        self.read_until(console, "heard words", LINUX_TIMEOUT)
        self.ended_keeping_logs(console)
        self.finish(port)
        first = self.check("logs", "vm", "--port", "1").out
        self.assertEqual(first.count("z"), 512 << 10)
        self.check("rm", "vm")

    def ended_keeping_logs(self, console):
        self.assertEqual(self.run_vmmhost("wait", "vm", timeout=LINUX_TIMEOUT).code, 0)
        self.finish(console)

    def test_kernel_console_on_virtio(self):
        """Without a serial console: the kernel's messages come by the virtio console once its driver is there."""
        # What the guest's init says goes nowhere: when it began, there was no console yet.
        arguments = self.linux_arguments("cloud", "echo on $(cat /sys/class/tty/console/active) >/dev/hvc0", "-f",
                                         self.config(consoles=[{"kind": "virtio"}]))
        arguments = [word.replace("console=ttyS0 quiet", "console=ttyS0 console=hvc0") for word in arguments]
        said = self.check("run", "--name", "vm", *arguments, timeout=LINUX_TIMEOUT).out.replace("\r", "")
        self.assertRegex(said, r"(?m)^\[ *\d+\.\d+\] \w")
        self.assertRegex(said, r"(?m)^on (.* )?hvc0$")
        self.check("rm", "vm")


class Wide(DevicesTest):
    """8 processors, disks and cards, 4 consoles: what a driver does on its way in and out, on all of them at once."""
    ROUNDS = 8 if LONG else 2
    # In turns within a round: each device loses its driver and gets it again while the others stay.
    REBIND = ("n=0; while [ $n -lt {rounds} ]; do for d in /sys/bus/virtio/devices/virtio*; do "
              "v=$(basename $d); b=$(readlink -f $d/driver); [ -e $b/unbind ] || continue; "
              "echo $v >$b/unbind; echo $v >$b/bind; done; n=$((n + 1)); done; "
              "ls /sys/block | grep -c ^vd; ls /sys/class/net | grep -c ^eth; "
              "dd if=/dev/vda of=/dev/null bs=64k count=16 2>/dev/null && echo reads")

    def setUp(self):
        super().setUp()
        before = harness.MAX_WORKER_PRIVATE
        harness.MAX_WORKER_PRIVATE = harness.WIDE_WORKER_PRIVATE
        self.addCleanup(setattr, harness, "MAX_WORKER_PRIVATE", before)

    def test_drivers_come_and_go(self):
        said = self.boot_linux("cloud", self.REBIND.format(rounds=self.ROUNDS), "-f",
                               self.config(**harness.wide_machine(self.folder)))
        lines = said.splitlines()
        self.assertEqual(lines.count("8"), 2, said)  # disks and cards that are there in the end
        self.assertIn("reads", lines)


class Clock(DevicesTest):
    def guests_time(self, console):
        before = time.time()
        console.stdin.write(b"probe now\n")
        console.stdin.flush()
        said = self.read_until(console, " ns\r\n")
        return before, int(re.search(r"probe: (\d+) ns", said).group(1)) / 1e9, time.time()

    def test_clock_is_right_after_a_pause(self):
        """Measured against what it was before: until the kernel takes its clock from KVM, half a second after its
        start, it counts ticks, and loses as much of them in the lab (under QEMU the same)."""
        console = self.boot("vm", None, "a shell", with_probe=True)
        before, guests, after = self.guests_time(console)
        earliest, latest = before - guests, after - guests
        self.check("pause", "vm")
        time.sleep(PAUSE)  # what is tested: that time passes
        self.check("resume", "vm")
        before, guests, after = self.guests_time(console)
        print(f"guest's clock: {earliest:.3f} to {latest:.3f} s late, after a pause of {PAUSE} s {before - guests:.3f} to "
              f"{after - guests:.3f} s")
        self.assertLess(before - guests, latest + 0.1)
        self.assertGreater(after - guests, earliest - 0.1)
        console.stdin.write(b"dmesg | grep -iE 'lockup|stall|clocksource.*unstable' && echo bad; exit\n")
        console.stdin.flush()
        self.assertNotIn("\nbad", self.ended("vm", console).replace("\r", ""))


if __name__ == "__main__":
    unittest.main()
