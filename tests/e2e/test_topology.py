"""Virtual CPUs as a guest sees them: every topology that is accepted boots with the processors, cores and packages that
were asked for, and any other is refused by the name of its field."""
import json
import os
import re
import unittest

from harness import VmmhostTest, guest, kvm_usable
from test_linux import LinuxTest

LINE = re.compile(r"cpu (\d+) threads (\d+) (\d+) package (\d+) (\d+)")


def topology(count, threads=1, cores=0):
    return {"cpus": {"count": count, "threadsPerCore": threads, "coresPerSocket": cores}}


class TopologyTest(VmmhostTest):
    def run_with(self, config, *arguments):
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            json.dump(config, file)
        return self.run_vmmhost("run", "--backend", self.backend, "--rm", "--memory", "64M", "--timeout", "60", "-f",
                                path, *arguments)

    def assert_seen(self, count, threads=1, cores=0):
        """From inside, by the bits of the processors' numbers and by the counts beside them."""
        with self.subTest(f"{count} CPUs, {threads} threads a core, {cores} cores a socket"):
            result = self.run_with(topology(count, threads, cores), "--kernel", guest("topology"), "--cmdline", count)
            self.assertEqual(result.code, 0, result.err)
            found = [tuple(map(int, match)) for match in LINE.findall(result.out)]
            numbers = [line[0] for line in found]
            self.assertEqual(len(set(numbers)), count, result.out)
            in_socket = threads * (cores or count // threads)
            for number, thread_bits, thread_count, package_bits, package_count in found:
                core = [other for other in numbers if other >> thread_bits == number >> thread_bits]
                package = [other for other in numbers if other >> package_bits == number >> package_bits]
                self.assertEqual((len(core), len(package)), (threads, in_socket), result.out)
                self.assertEqual((thread_count, package_count), (threads, in_socket), result.out)

    def assert_refused(self, field, *shape):
        with self.subTest(f"{field} {shape}"):
            result = self.run_with(topology(*shape), "--kernel", guest("topology"))
            self.assertEqual(result.code, 125, result.out + result.err)
            self.assertIn(field + ":", result.err)


@unittest.skipUnless(kvm_usable(), "there is no /dev/kvm")
class KvmTopology(TopologyTest):
    backend = "kvm"

    def test_what_is_accepted_is_seen(self):
        for count in (1, 2, 3, 4, 5, 6, 7, 12, 33, 64):
            self.assert_seen(count)
        self.assert_seen(6, cores=6)

    def test_the_rest_is_refused(self):
        self.assert_refused("cpus.threadsPerCore", 2, 2)
        self.assert_refused("cpus.threadsPerCore", 6, 3)
        self.assert_refused("cpus.coresPerSocket", 4, 1, 2)
        self.assert_refused("cpus.count", 65)


class QemuTopology(TopologyTest):
    backend = "qemu"

    def test_what_is_accepted_is_seen(self):
        for shape in ((1,), (2,), (3,), (6,), (7,), (2, 2), (4, 2), (6, 2), (8, 2, 2), (8, 4), (6, 2, 3), (8, 1, 4),
                      (4, 1, 1), (15, 1, 15), (64, 2, 8)):
            self.assert_seen(*shape)

    def test_the_rest_is_refused(self):
        for shape in ((3, 3), (6, 3), (9, 3, 3), (5, 5), (12, 6), (64, 5)):
            self.assert_refused("cpus.threadsPerCore", *shape)
        for shape in ((8, 2, 3), (6, 1, 3), (12, 2, 3), (15, 1, 5)):
            self.assert_refused("cpus.coresPerSocket", *shape)
        self.assert_refused("cpus.count", 65)


class LinuxTopology(LinuxTest):
    """The same by a kernel that takes its scheduler's domains from it, and hangs or dies where it makes no sense."""
    SEES = ("cd /sys/devices/system/cpu; for c in cpu[0-9]*; do "
            "echo seen $(cat $c/topology/thread_siblings_list) / $(cat $c/topology/core_siblings_list); done")

    def test_is_seen(self):
        for count, threads, cores in ((6, 2, 3), (8, 4, 1), (8, 1, 4)):
            with self.subTest(f"{count} CPUs, {threads} threads a core, {cores} cores a socket"):
                path = os.path.join(self.folder, "vm.json")
                with open(path, "w") as file:
                    json.dump(topology(count, threads, cores), file)
                out = self.boot(self.SEES, "-f", path).out.replace("\r", "")
                seen = re.findall(r"^seen (\S+) / (\S+)$", out, re.MULTILINE)
                self.assertEqual(len(seen), count, out)

                def size(cpus):
                    ends = [part.split("-") for part in cpus.split(",")]
                    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)
                shapes = {(size(core), size(package)) for core, package in seen}
                self.assertEqual(shapes, {(threads, threads * cores)}, out)


if __name__ == "__main__":
    unittest.main()
