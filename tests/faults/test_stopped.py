"""SIGSTOP of worker, supervisor and client: verbs answer or say that nobody does, ps tells the truth, SIGCONT mends it,
and what is killed while it is stopped leaves nothing."""
import os
import re
import signal
import time
import unittest

from fault_harness import FaultTest, guest, is_gone, read, wait_until

# The longest that a verb takes when nobody answers it: 20 s for stop and rm -f, less for the others.
VERB_LIMIT = 25


class Stopped(FaultTest):
    def ask_all(self, verbs, name):
        """Side by side, as each may take its whole deadline; verb -> result."""
        asked = {verb: self.start(*verb.split(), name) for verb in verbs}
        return {verb: self.finish(process, VERB_LIMIT) for verb, process in asked.items()}

    def row(self, name):
        """The state of a VM as ps tells it."""
        line = re.search(rf"^{name} .*$", self.check("ps").out, re.MULTILINE)
        self.assertTrue(line, f"ps lists {name}")
        return re.search(r"running|paused|not answering", line[0])[0]

    def stop_process(self, pid):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] == b"T", 5, "it is stopped")

    def refuse_in_words(self, results, words):
        for verb, result in results.items():
            self.assertEqual(result.code, 125, f"{verb}: {result.out} {result.err}")
            self.assertRegex(result.err, words, verb)

    # The worker: everything that does not need it answers.

    def test_stopped_worker_holds_up_its_own_verbs_only(self):
        info = self.fake_detached("vm")
        self.stop_process(info["workerPid"])
        results = self.ask_all(["pause", "resume", "reset", "shutdown"], "vm")
        self.refuse_in_words(results, "took longer than")
        self.assertEqual(self.row("vm"), "running")
        self.assertEqual(self.check("inspect", "vm", "--json").json["workerPid"], info["workerPid"])
        self.check("logs", "vm")
        self.assert_neighbour_well()
        os.kill(info["workerPid"], signal.SIGCONT)
        self.check("rm", "-f", "vm")

    def test_continued_worker_goes_on(self):
        info = self.fake_detached("vm")
        self.stop_process(info["workerPid"])
        pausing = self.start("pause", "vm")
        self.assertEqual(self.row("vm"), "running")
        os.kill(info["workerPid"], signal.SIGCONT)
        self.assertEqual(self.finish(pausing, VERB_LIMIT).code, 0)
        self.assertEqual(self.row("vm"), "paused")
        self.check("resume", "vm")
        self.check("rm", "-f", "vm")

    def test_stopped_worker_is_killed_and_told(self):
        info = self.fake_detached("vm")
        self.stop_process(info["workerPid"])
        os.kill(info["workerPid"], signal.SIGKILL)
        waited = self.run_vmmhost("wait", "vm")
        self.assertEqual(waited.code, 1, waited.err)
        self.assertIn("SIGKILL", waited.out)
        self.check("rm", "vm")

    def test_stopped_worker_is_ended_by_stop(self):
        info = self.fake_detached("vm")
        self.stop_process(info["workerPid"])
        self.check("stop", "vm")
        self.assertTrue(is_gone(info["workerPid"]))
        self.check("rm", "vm")

    # The supervisor: nobody answers, and every command says so in time.

    def test_stopped_supervisor_is_told_and_harms_nobody(self):
        info = self.fake_detached("vm")
        self.stop_process(info["supervisorPid"])
        self.assertEqual(self.row("vm"), "not answering")
        doctor = self.start("doctor", "--json")
        results = self.ask_all(["pause", "resume", "reset", "shutdown", "inspect", "stop", "console", "rm -f"], "vm")
        self.refuse_in_words(results, "took longer than .* ms")
        told = self.finish(doctor).json["vms"]
        self.assertEqual([(vm["name"], vm["status"]) for vm in told], [("vm", "notAnswering")])
        result = self.run_vmmhost("rm", "vm")
        self.assertEqual(result.code, 125, result.err)
        self.assertIn("is running", result.err)
        self.check("logs", "vm")
        self.assertEqual(self.row("vm"), "not answering")
        self.assert_neighbour_well()
        os.kill(info["supervisorPid"], signal.SIGCONT)
        # Nothing of what was given up is done behind everybody's back.
        self.assertEqual(self.state("vm"), "running")
        self.check("rm", "-f", "vm")

    def test_continued_supervisor_goes_on(self):
        info = self.fake_detached("vm")
        self.stop_process(info["supervisorPid"])
        self.assertEqual(self.row("vm"), "not answering")
        os.kill(info["supervisorPid"], signal.SIGCONT)
        self.assertEqual(self.state("vm"), "running")
        self.check("pause", "vm")
        self.check("rm", "-f", "vm")

    def test_waiting_for_a_stopped_supervisor_ends_with_the_vm(self):
        info = self.fake_detached("vm")
        waiting = self.start("wait", "vm")
        self.stop_process(info["supervisorPid"])
        os.kill(info["workerPid"], signal.SIGKILL)
        self.assertIsNone(waiting.poll())
        os.kill(info["supervisorPid"], signal.SIGCONT)
        result = self.finish(waiting, 10)
        self.assertEqual(result.code, 1, result.err)
        self.check("rm", "vm")

    def test_supervisor_killed_while_it_is_stopped_leaves_nothing(self):
        info = self.fake_detached("vm")
        self.stop_process(info["supervisorPid"])
        os.kill(info["supervisorPid"], signal.SIGKILL)
        wait_until(lambda: is_gone(info["workerPid"]), 5, "the worker is gone")
        self.assertNotIn("vm ", self.check("ps").out)
        self.assertEqual(self.run_vmmhost("wait", "vm").code, 125)
        self.check("rm", "vm")

    # The client.

    def running(self, kernel):
        process = self.start("run", "--backend", "fake", "--name", "vm", "--rm", "--memory", "8M", "--kernel",
                             guest(kernel))

        def runs():
            told = self.run_vmmhost("inspect", "vm", "--json")
            return told.code == 0 and told.json["state"] == "running"

        wait_until(runs, 60, "the VM runs")
        return process

    def test_stopped_client_does_not_hold_up_the_vm(self):
        process = self.running("serial_echo")
        self.stop_process(process.pid)
        # As much output as no pipe and no socket takes: the VM's other clients get all of it.
        self.check("pause", "vm")
        self.check("resume", "vm")
        other = self.start("console", "vm")
        for _ in range(20):
            other.stdin.write(b"x" * 499 + b"y")
            other.stdin.flush()
        wait_until(lambda: self.check("logs", "vm").out.count("y") == 21, 10, "the guest has said all of it")
        self.assertEqual(self.row("vm"), "running")
        os.kill(process.pid, signal.SIGCONT)
        other.stdin.write(b"\x04")
        other.stdin.flush()
        self.assertEqual(self.finish(other, 10).code, 0)
        result = self.finish(process, 10)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out.count("y"), 21)

    def test_client_killed_while_it_is_stopped_takes_the_vm_along(self):
        process = self.running("loop")
        info = self.inspect("vm")
        self.stop_process(process.pid)
        process.kill()
        wait_until(lambda: is_gone(info["workerPid"]) and is_gone(info["supervisorPid"]), 5, "all of it is gone")
        self.assertNotIn("vm ", self.check("ps", "-a").out)

    def test_stop_of_a_vm_whose_client_is_stopped(self):
        process = self.running("loop")
        self.stop_process(process.pid)
        began = time.monotonic()
        self.check("stop", "vm")
        self.assertLess(time.monotonic() - began, 10)
        self.assertNotIn("vm ", self.check("ps", "-a").out)
        os.kill(process.pid, signal.SIGCONT)
        result = self.finish(process, 10)
        self.assertEqual(result.code, 143, result.err)


if __name__ == "__main__":
    unittest.main()
