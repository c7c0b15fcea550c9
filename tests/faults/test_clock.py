"""The wall clock jumps a day ahead or back under command and supervisor: displayed times change, and nothing else."""
import json
import os
import shutil
import threading
import time
import unittest

from fault_harness import FaultTest, guest, harness, read, wait_until

DAY = 86400
SHIM = os.environ["VMMHOST_FAULT_CLOCK_SHIM"]


class Clock(FaultTest):
    """Both processes with tests/faults/clock_shim.c. A supervisor's environment is swept: its program is replaced by one
    that preloads, in a copy of the installed prefix."""

    @classmethod
    def setUpClass(cls):
        cls.copy = harness.tempfile.mkdtemp(prefix="vmmhost-clock-")
        stage = os.path.join(cls.copy, "stage")
        shutil.copytree(harness.STAGE, stage, symlinks=True)
        supervisor = next(os.path.join(folder, "vmmhost-supervisor") for folder, _, names in os.walk(stage)
                          if "vmmhost-supervisor" in names)
        os.rename(supervisor, supervisor + ".real")
        with open(supervisor, "w") as file:
            file.write(f'#!/bin/sh\nLD_PRELOAD="{SHIM}" exec "{supervisor}.real"\n')
        os.chmod(supervisor, 0o755)
        cls.before, harness.VMMHOST = harness.VMMHOST, os.path.join(stage, "bin", "vmmhost")

    @classmethod
    def tearDownClass(cls):
        harness.VMMHOST = cls.before
        shutil.rmtree(cls.copy)

    def setUp(self):
        super().setUp()
        self.clock = os.path.join(self.folder, "clock")
        self.jump(0)
        self.environment["VMMHOST_FAULT_CLOCK"] = self.clock
        self.environment["LD_PRELOAD"] = SHIM

    def tearDown(self):
        asked = len(read(self.clock + ".asked"))
        self.environment.pop("LD_PRELOAD")
        super().tearDown()
        self.assertGreater(asked, 0, "the shim was there")

    def jump(self, seconds):
        with open(self.clock + ".new", "w") as file:
            file.write(str(seconds))
        os.rename(self.clock + ".new", self.clock)

    def jumping(self):
        """Ahead and back without end, until the returned event is set."""
        over = threading.Event()

        def jump_about():
            days = (DAY, -DAY, 0)
            count = 0
            while not over.wait(0.02):
                count += 1
                self.jump(days[count % 3])

        thread = threading.Thread(target=jump_about)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(over.set)
        return over

    def test_displayed_times_jump_along(self):
        self.fake_detached("vm")
        started = self.inspect("vm")["startedUnixMs"] / 1000
        self.assertLess(abs(started - time.time()), 60)
        self.jump(DAY)
        self.fake_detached("tomorrow")
        self.assertLess(abs(self.inspect("tomorrow")["startedUnixMs"] / 1000 - DAY - time.time()), 60)
        for name in ("vm", "tomorrow"):
            self.check("rm", "-f", name)

    def test_timeout_is_as_long_as_it_is(self):
        for seconds in (DAY, -DAY):
            with self.subTest(seconds):
                self.jump(0)
                began = time.monotonic()
                process = self.start("run", "--backend", "fake", "--rm", "--name", "vm", "--memory", "8M", "--timeout",
                                     "2", "--kernel", guest("loop"))
                wait_until(lambda: self.run_vmmhost("inspect", "vm").code == 0, 10, "the VM runs")
                self.jump(seconds)
                self.assertEqual(self.finish(process, 20).code, 124)
                self.assertGreaterEqual(time.monotonic() - began, 2)

    def test_deadlines_of_a_start_are_as_long_as_they_are(self):
        self.jumping()
        began = time.monotonic()
        result = self.fake(fault="fault=silent:hello fault-deadline=hello:1500")
        self.assertEqual(self.what_happened(result)[1], "deadlineExceeded", result.out)
        self.assertGreaterEqual(time.monotonic() - began, 1.5)
        self.assertLess(time.monotonic() - began, 10)
        for moment in ("hello", "confirm", "create", "start"):
            began = time.monotonic()
            result = self.fake(fault=f"fault=slow:300:{moment}", kernel="hello")
            self.assertEqual(result.code, 0, result.out)
            self.assertGreaterEqual(time.monotonic() - began, 0.3)

    def test_verbs_and_their_deadlines_are_as_ever(self):
        self.fake_detached("vm", fault="fault=slow:500:pause fault=silent:press")
        self.jumping()
        began = time.monotonic()
        self.check("pause", "vm")
        self.assertGreaterEqual(time.monotonic() - began, 0.5)
        for verb in ("resume", "reset", "inspect", "logs"):
            self.check(verb, "vm")
        began = time.monotonic()
        result = self.run_vmmhost("shutdown", "vm")
        self.assertEqual(result.code, 125)
        self.assertIn("took longer than", result.err)
        self.assertGreaterEqual(time.monotonic() - began, 4.9)
        self.assertLess(time.monotonic() - began, 15)
        result = self.run_vmmhost("shutdown", "--timeout", "1", "vm")
        self.assertEqual(result.code, 125)
        self.assertIn("took longer than", result.err)
        self.assertEqual([row["name"] for row in self.check("ps", "-a", "--json").json], ["neighbour", "vm"])
        self.check("rm", "-f", "vm")

    def test_outcomes_and_lists_are_right_while_it_jumps(self):
        self.jumping()
        for _ in range(5):
            result = self.fake(kernel="hello", name="vm")
            self.assertEqual((result.code, self.what_happened(result)[1]), (0, "powerOff"))
        self.fake_detached("vm")
        row = next(row for row in json.loads(self.check("ps", "--json").out) if row["name"] == "vm")
        self.assertEqual(row["state"], "running")
        self.assertRegex(self.check("ps").out, r"(?m)^vm +fake +running +1 +64M +\d")  # no uptime below 0
        self.check("stop", "vm")
        self.assertEqual(self.run_vmmhost("wait", "vm").code, 143)
        self.check("rm", "vm")

    def test_timings_are_of_a_clock_that_does_not_jump(self):
        self.jumping()
        info = self.fake_detached("vm")
        times = [phase["ns"] for phase in info["timings"]]
        self.assertEqual(times, sorted(times))
        self.assertLess(times[-1] - times[0], 60e9)
        self.check("rm", "-f", "vm")


if __name__ == "__main__":
    unittest.main()
