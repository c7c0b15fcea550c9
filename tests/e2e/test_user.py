"""As an ordinary user: where the tests are root's, the commands run under uid 1000."""
import os
import signal
import unittest

from harness import USER, OrdinaryUserTest, guest, is_gone, wait_until


class OrdinaryUser(OrdinaryUserTest):
    def test_guest_runs_confined(self):
        result = self.check("run", "--backend", "qemu", "--rm", "--memory", "64M", "--kernel", guest("hello"))
        self.assertIn("hello from the guest", result.out)

    def test_life_of_a_detached_vm(self):
        info = self.detached("mine", "qemu")
        with open(f"/proc/{info['workerPid']}/status") as file:
            status = file.read()
        self.assertIn("NoNewPrivs:\t1", status)
        self.assertIn("Seccomp:\t2", status)
        self.assertIn("CapBnd:\t0000000000000000", status)
        if os.geteuid() == 0:
            self.assertIn(f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}", status)
        self.check("pause", "mine")
        self.check("resume", "mine")
        self.assertEqual(self.run_vmmhost("stop", "mine").code, 0)
        self.check("rm", "mine")

    def test_killed_supervisor_leaves_nothing(self):
        info = self.detached("orphan", "qemu")
        os.kill(info["supervisorPid"], signal.SIGKILL)
        wait_until(lambda: is_gone(info["workerPid"]), 5, "the worker is gone")
        self.check("ps")
        self.check("rm", "orphan")

    def test_kvm_without_permission_exits_126_and_says_why(self):
        if os.access("/dev/kvm", os.R_OK) and os.stat("/dev/kvm").st_mode & 0o006:
            self.skipTest("/dev/kvm is open to everybody here")
        result = self.run_vmmhost("run", "--backend", "kvm", "--rm", "--kernel", guest("poweroff"))
        self.assertEqual(result.code, 126, result.err)
        self.assertIn("/dev/kvm", result.err)


if __name__ == "__main__":
    unittest.main()
