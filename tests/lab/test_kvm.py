"""worker-kvm on a /dev/kvm that is hardware as far as it can tell: what the machine's own may not be."""
import os
import unittest

from lab_harness import LabTest, guest, harness


class Hardware(LabTest):
    def test_kvm_is_measured_as_hardware(self):
        self.assertTrue(os.access("/dev/kvm", os.R_OK | os.W_OK))
        found = {backend["name"]: backend for backend in self.check("backends", "--json").json}
        kvm = found["kvm"]
        self.assertTrue(kvm["usable"], kvm)
        self.assertEqual(kvm["acceleration"], "hardware", kvm)
        # A KVM that emulates does 1 to 3 million.
        self.assertGreater(int(kvm["instructionsPerSecond"]), 20_000_000, kvm)
        self.assertEqual(max(found.values(), key=lambda backend: backend["preference"])["name"], "kvm")
        print(f"{kvm['summary']}")

    def test_doctor_misses_nothing(self):
        print(self.check("doctor").out)


class BareGuests(LabTest):
    """What lab.conformance has not in it: what its cases see of such guests is not seen again here."""
    def test_auto_picks_kvm(self):
        result = self.check("run", "--rm", "--json", "--memory", "64M", "--kernel", guest("poweroff"))
        self.assertEqual(result.json["backend"], "kvm")

    def test_worker_is_small_and_limited_by_control_groups(self):
        """The lab's are delegated as a system's are; the machine that tests run on may have none."""
        used = int(self.detached("limited", "kvm")["workerPrivateBytes"])
        self.assertGreater(used, 0)
        self.assertLessEqual(used, harness.MAX_WORKER_PRIVATE)
        print(f"private memory of the worker: {used / (1 << 20):.2f} MiB")
        groups = [path for path in harness.cgroups() - self.before_cgroups]
        self.assertTrue(groups, "the worker has a control group")
        limits = {path: harness.read(os.path.join(path, "pids.max")).strip() for path in groups}
        self.assertTrue(any(value not in (b"", b"max") for value in limits.values()), limits)
        self.check("rm", "-f", "limited")


if __name__ == "__main__":
    unittest.main()
