"""The lab's own proof: other people's VMM boots unmodified kernels in it. Without that a test of ours says little."""
import unittest

from lab_harness import LabTest, command_line, kernel, kernel_release


class Nested(LabTest):
    def boots(self, name):
        # As QEMU's page on microvm has it (docs/performance.md): its interval timer, an interrupt controller that is
        # emulated for it and a clock would cost exits, and boots that stand still did so while those are set up.
        command = ["qemu-system-x86_64", "-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=off", "-bios", "qboot.rom",
                   "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel(name),
                   "-initrd", kernel(name, "initramfs.cpio"), "-append", command_line("uname -r", "vmmhost.times")]
        seconds, seen = self.reference_until(command, "vmmhost-guest: exit status 0")
        self.assertIn(kernel_release(name), seen.replace("\r", "").splitlines())
        init = next(line for line in seen.splitlines() if "vmmhost-guest: init after" in line)
        print(f"QEMU microvm, {kernel_release(name)}: {init.strip()}, the command's end {seconds:.1f} s after the start")

    def test_kernel_of_this_release_boots(self):
        self.boots("cloud")

    def test_newest_kernel_boots(self):
        self.boots("current")


if __name__ == "__main__":
    unittest.main()
