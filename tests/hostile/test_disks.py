"""What a worker that was taken over can make of the host's file systems through its disks: while it runs none of their
files is longer than the longest is planned, and after its end none is longer, or takes more, than planned itself."""
import json
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import USER, OrdinaryUserTest, VmmhostTest  # noqa: E402

MIB = 1 << 20


class GrowingDisks:
    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = self.plugins()

    def plugins(self):
        return os.environ["VMMHOST_HOSTILE_PLUGINS"]

    def owned(self, path):
        return path

    def disk(self, name, size):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.truncate(size)
        return self.owned(path)

    def image(self, name, size):
        """The header of a qcow2 image of a disk of this size, in a file that is as long."""
        path = self.disk(name, size)
        with open(path, "r+b") as file:
            file.write(struct.pack(">4sI12xIQ4xI16xI36xII", b"QFI\xfb", 3, 16, size, 1, 1, 4, 104))
        return path

    def configuration(self, attack, *disks, jail="static"):
        options = {"attack": attack, "moment": "start", "jail": jail, "token": "disks"}
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            json.dump({"boot": {"kernel": "vm.json"}, "memory": {"size": "64M"},
                       "disks": [{"file": disk, "format": "qcow2" if disk.endswith(".qcow2") else "raw"}
                                 for disk in disks],
                       "platform": {"options": [{"name": name, "value": value} for name, value in options.items()]}},
                      file)
        return self.owned(path)

    def attack(self, attack, *disks, jail="static", name="vm"):
        result = self.run_vmmhost("run", "--backend", "hostile", "--json", "--name", name, "-f",
                                  self.configuration(attack, *disks, jail=jail))
        self.assertEqual(result.code, 0, result.out + result.err)
        self.notes = result.json["outcome"]["notes"]
        return result.json["outcome"]["detail"]

    def told(self, name="vm"):
        return [line for line in self.check("logs", "--vmm", name).out.splitlines() if "at the VM's end" in line]

    def assert_within(self, path, planned):
        """One block may be begun."""
        status = os.stat(path)
        self.assertEqual(status.st_size, planned)
        self.assertLessEqual(status.st_blocks * 512, planned + status.st_blksize)

    def test_disk_beside_a_larger_one_grows_to_its_size_and_is_cut_back(self):
        for jail in ("static", "system"):
            with self.subTest(jail):
                small, large = self.disk("small", MIB), self.disk("large", 8 * MIB)
                self.assertEqual(self.attack("disk-grow-further", small, large, jail=jail, name=jail),
                                 "attack disk-grow-further: succeeded")
                self.assert_within(small, MIB)
                self.assert_within(large, 8 * MIB)
                told = self.told(jail)
                self.assertEqual(len(told), 1, told)
                self.assertIn(f"disks[0]: {small}: {8 * MIB} bytes long at the VM's end, planned were {MIB}: cut back",
                              told[0])
                self.assertEqual(len(self.notes), 1, "who runs it with --rm is told as well")
                self.assertTrue(told[0].endswith(self.notes[0]), (told, self.notes))
                self.check("rm", jail)

    def test_disk_of_a_running_vm_is_no_longer_than_the_longest_is_planned(self):
        small, large = self.disk("small", MIB), self.disk("large", 8 * MIB)
        self.check("run", "--backend", "hostile", "--detach", "--name", "vm", "-f",
                   self.configuration("disk-grow-and-stay", small, large))
        self.assert_within(small, 8 * MIB)
        self.check("stop", "vm")
        self.assert_within(small, MIB)
        self.check("rm", "vm")

    def test_image_beside_a_larger_disk_is_told_and_left(self):
        small, large = self.image("small.qcow2", MIB), self.disk("large", 8 * MIB)
        self.assertEqual(self.attack("disk-grow-further", small, large), "attack disk-grow-further: succeeded")
        self.assertEqual(os.stat(small).st_size, 8 * MIB)
        told = self.told()
        self.assertEqual(len(told), 1, told)
        self.assertIn(f"disks[0]: {small}: {8 * MIB} bytes long at the VM's end, planned were ", told[0])
        self.assertIn("an image is left as it is", told[0])
        self.check("rm", "vm")

    def test_disk_that_somebody_else_made_longer_is_cut_back(self):
        disk = self.disk("disk", MIB)
        self.check("run", "--backend", "hostile", "--detach", "--name", "vm", "-f",
                   self.configuration("neighbour", disk))
        os.truncate(disk, 3 * MIB)
        self.check("stop", "vm")
        self.assert_within(disk, MIB)
        self.assertIn(f"disks[0]: {disk}: {3 * MIB} bytes long at the VM's end, planned were {MIB}: cut back",
                      self.told()[0])
        self.assertIn("cut back", self.check("inspect", "vm").json["outcome"]["notes"][0])
        self.check("rm", "vm")

    def test_disk_as_planned_is_left_alone(self):
        disk = self.disk("disk", MIB)
        before = os.stat(disk).st_mtime_ns
        self.assertEqual(self.attack("counters-random", disk), "attack counters-random: succeeded")
        self.assertEqual(self.told(), [])
        self.assertEqual(os.stat(disk).st_mtime_ns, before)
        self.check("rm", "vm")


class Disks(GrowingDisks, VmmhostTest):
    pass


@unittest.skipUnless(os.geteuid() == 0, "the tests of root do it for ordinary users")
class DisksOfAUser(GrowingDisks, OrdinaryUserTest):
    def plugins(self):
        return os.path.join(self.reach, "lib", "hostile-plugins")

    def owned(self, path):
        os.chown(path, USER, USER)
        return path


if __name__ == "__main__":
    unittest.main()
