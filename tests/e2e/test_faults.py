"""Death of each part: reported, with the right exit code, and nothing left."""
import os
import signal
import time
import unittest

from harness import SANITIZED, VmmhostTest, backends, guest, is_gone, wait_until


AT_ONCE = 2 if not SANITIZED else 10  # seconds; it takes some milliseconds, but for what else the machine does


class Faults(VmmhostTest):
    backend = backends()[0]

    def running(self, name="vm"):
        process = self.start("run", "--backend", self.backend, "--name", name, "--rm", "--json", "--memory", "64M",
                             "--kernel", guest("loop"))

        def info():
            result = self.run_vmmhost("inspect", name, "--json")
            return result.json if result.code == 0 and result.json["state"] == "running" else None

        return process, wait_until(info, 30, "the VM runs")

    def test_killed_worker_is_reported_at_once_with_its_cause(self):
        process, info = self.running()
        os.kill(info["workerPid"], signal.SIGKILL)
        began = time.monotonic()
        process.wait(10)
        elapsed = time.monotonic() - began
        self.assertLess(elapsed, AT_ONCE)
        result = self.finish(process)
        self.assertEqual(result.code, 1, result.err)
        self.assertEqual(result.json["outcome"]["kind"], "workerDied")
        self.assertIn("SIGKILL", result.json["outcome"]["detail"])
        print(f"\nworker's death reported after {elapsed * 1e3:.1f} ms")

    def test_killed_client_takes_the_vm_with_it(self):
        process, info = self.running()
        process.kill()
        began = time.monotonic()
        wait_until(lambda: is_gone(info["workerPid"]) and is_gone(info["supervisorPid"]), 5,
                   "worker and supervisor are gone")
        print(f"\nall gone {(time.monotonic() - began) * 1e3:.1f} ms after the client's death")
        self.assertEqual(self.check("ps", "--json").out.count('"vm"'), 0)

    def test_killed_supervisor_takes_the_worker_with_it(self):
        process, info = self.running()
        os.kill(info["supervisorPid"], signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: is_gone(info["workerPid"]), 5, "the worker is gone")
        print(f"\nworker gone {(time.monotonic() - began) * 1e3:.1f} ms after the supervisor's death")
        self.assertEqual(self.finish(process).code, 125)
        self.assertEqual(self.check("ps", "--json").out.count('"vm"'), 0)

    def test_killed_supervisor_of_a_detached_vm_is_reaped_by_ps(self):
        info = self.detached("gone", self.backend)
        os.kill(info["supervisorPid"], signal.SIGKILL)
        wait_until(lambda: is_gone(info["workerPid"]), 5, "the worker is gone")
        self.assertNotIn("gone", self.check("ps").out)
        row, = self.check("ps", "-a", "--json").json
        self.assertEqual((row["name"], row["state"], row["outcome"]["kind"]), ("gone", "ended", "supervisorDied"))
        self.assertEqual(self.run_vmmhost("wait", "gone").code, 125)
        self.check("rm", "gone")

    def test_stopped_supervisor_does_not_hang_ps(self):
        info = self.detached("stuck", self.backend)
        os.kill(info["supervisorPid"], signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.assertRegex(self.check("ps").out, "(?m)^stuck .*not answering")
            self.assertLess(time.monotonic() - began, 5)
        finally:
            os.kill(info["supervisorPid"], signal.SIGCONT)
        self.check("rm", "-f", "stuck")

    def test_stopped_worker_is_ended_by_stop(self):
        info = self.detached("frozen", self.backend)
        os.kill(info["workerPid"], signal.SIGSTOP)
        self.check("stop", "frozen")
        self.assertTrue(is_gone(info["workerPid"]))
        self.assertEqual(self.run_vmmhost("wait", "frozen").code, 143)
        self.check("rm", "frozen")

    def test_neighbour_never_notices(self):
        before = self.detached("neighbour", self.backend, kernel="serial_echo")
        process, info = self.running("victim")
        os.kill(info["workerPid"], signal.SIGKILL)
        self.assertEqual(self.finish(process).code, 1)
        after = self.inspect("neighbour")
        for key in ("state", "supervisorPid", "workerPid", "startedUnixMs"):
            self.assertEqual(after[key], before[key], key)
        console = self.start("console", "neighbour")
        console.stdin.write(b"still here")
        console.stdin.flush()
        self.read_until(console, "still here")
        console.terminate()
        self.finish(console)
        self.check("rm", "-f", "neighbour")


if __name__ == "__main__":
    unittest.main()
