"""The harness sees what it looks for: each of its checks fails when there is something to find."""
import json
import os
import subprocess
import unittest
from unittest import mock

from harness import MAX_WORKER_PRIVATE, SANITIZED, VmmhostTest, backends, cgroups, guest, processes, wait_until

KVM = "kvm" in backends()


class Harness(VmmhostTest):
    backend = backends()[0]

    def fails(self, check, *words):
        """That the check fails, and tells all of these."""
        with self.assertRaises(self.failureException) as failed:
            check()
        for word in words:
            self.assertIn(str(word), str(failed.exception))

    def test_processes_that_are_left_are_seen(self):
        info = self.detached("left", self.backend)
        self.fails(self.assert_nothing_left, "processes left", info["supervisorPid"], info["workerPid"])
        self.check("rm", "-f", "left")

    def test_worker_whose_supervisor_is_gone_is_seen(self):
        """As far as it tells of itself: its name, and the parent that an orphan gets."""
        path = os.path.join(self.folder, "vmmhost-worker-left")
        os.symlink("/bin/sleep", path)
        script = f'"{path}" 1000 >/dev/null 2>&1 & echo $!'
        pid = int(subprocess.run(["setsid", "sh", "-c", script], capture_output=True, text=True, env={}).stdout)
        wait_until(lambda: pid in processes(self.folder), 10, "it is seen once it runs what it is named for")
        os.kill(pid, 9)
        wait_until(lambda: pid not in processes(self.folder), 10, "it is gone")

    def test_runtime_entry_that_is_left_is_told_with_its_record(self):
        entry = os.path.join(self.folder, "run", "left")
        os.mkdir(entry, 0o700)
        record = os.path.join(entry, "record")
        with open(record, "w") as file:
            file.write("backend=of a test\n")
        self.fails(self.assert_nothing_left, "runtime entries left", "backend=of a test")
        os.unlink(record)
        os.rmdir(entry)

    def test_record_of_a_vm_has_the_name_that_is_read(self):
        info = self.detached("vm", self.backend)
        with open(os.path.join(self.folder, "run", "vm", "record")) as file:
            self.assertIn(f"supervisorPid={info['supervisorPid']}\n", file.read())
        self.check("rm", "-f", "vm")

    def test_control_group_that_is_left_is_seen(self):
        info = self.detached("limited", self.backend)
        groups = [group for group in cgroups() - self.before_cgroups
                  if group.endswith(f"-{info['supervisorPid']}")]
        if not groups:
            self.assertTrue([line for line in info["jail"] if "NOT limited" in line], info["jail"])
            self.check("rm", "-f", "limited")
            self.skipTest("VMs have no control groups here, and say so")
        self.check("rm", "-f", "limited")
        ended = subprocess.Popen(["true"])
        ended.wait()
        left = f"{groups[0].rpartition('-')[0]}-{ended.pid}"
        os.mkdir(left)
        try:
            with mock.patch("harness.OTHERS_PATIENCE", 1):  # it is known to stay
                self.fails(self.assert_nothing_left, "control groups left", left)
        finally:
            os.rmdir(left)

    @unittest.skipIf(SANITIZED or not KVM, "it is worker-kvm's memory that is bounded, where nothing is added to it")
    def test_worker_that_is_large_or_was_not_measured_is_seen(self):
        self.check("run", "--backend", "kvm", "--name", "vm", "--memory", "64M", "--kernel", guest("poweroff"))
        path = os.path.join(self.folder, "state", "vm", "exit.json")
        with open(path) as file:
            kept = json.load(file)
        self.assert_good_workers()
        for used in (0, MAX_WORKER_PRIVATE + 1):
            kept["outcome"]["workerPrivateBytes"] = used
            with open(path, "w") as file:
                json.dump(kept, file)
            self.fails(self.assert_good_workers, used)
        self.fails(lambda: self.assert_small_worker("kvm", {"kind": "guest", "workerPrivateBytes": 0}), "guest")
        os.unlink(path)  # as it is now, every check of it fails
        self.check("rm", "vm")

    def test_worker_that_its_filter_ended_is_seen(self):
        """In what a command says, and in the record of a VM that nobody asked about."""
        self.environment["VMMHOST_PLUGIN_PATH"] = os.environ["VMMHOST_FAKE_PLUGINS"]
        fault = ("run", "--backend", "fake", "--name", "vm", "--kernel", guest("loop"), "--cmdline",
                 "fault=die:syscall:running")
        self.fails(lambda: self.run_vmmhost(*fault), "a call that its jail forbids", "SIGSYS")
        self.fails(self.assert_good_workers, "a call that its jail forbids", "SIGSYS")
        self.may_make_forbidden_calls = True
        self.check("rm", "vm")

    def test_what_does_not_come_about_fails(self):
        self.fails(lambda: wait_until(lambda: False, 0.01, "something"), "something: not within 0.01 s")

    def test_output_that_does_not_come_is_shown(self):
        for command, expected in (("echo last words", "ended without"), ("echo last words; read never", "not within")):
            with self.subTest(command), subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE,
                                                         stdout=subprocess.PIPE) as process:
                try:
                    self.fails(lambda: self.read_until(process, "more", 1), expected, "last words")
                finally:
                    process.kill()


if __name__ == "__main__":
    unittest.main()
