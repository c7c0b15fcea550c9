"""What tests/e2e/test_linux.py sees of qemu is seen of kvm: the same guests, with the same configuration files."""
import unittest

from lab_harness import LINUX_TIMEOUT, LONG, LabTest

import test_linux


if LONG:
    # A boot each, and of each there is a boot in lab.conformance, lab.boot or lab.devices as well.
    class Linux(LabTest, test_linux.Linux):
        backend = "kvm"
        image_format = "raw"
        limit = LINUX_TIMEOUT


class Devices(LabTest, test_linux.Devices):
    backend = "kvm"
    limit = LINUX_TIMEOUT


del test_linux  # else its own tests would be found here as well


if __name__ == "__main__":
    unittest.main()
