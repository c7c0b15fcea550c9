"""A worker that fails in every way at every moment: reported in time, with a cause that says what happened."""
import concurrent.futures
import re
import signal
import time
import unittest

from fault_harness import SANITIZED, FaultTest, guest

STARTING = ("constructor", "before-hello", "hello", "confirm", "attach", "create", "start")
VERBS = {"pause": "pause", "resume": "resume", "reset": "reset", "press": "shutdown"}
# What dies says how, in the same words wherever it does.
DEATHS = {
    "exit:0": "the worker exited with code 0",
    "exit": "the worker exited with code 7",
    "die:segv": "the worker was ended by SIGSEGV",
    "die:abort": "the worker was ended by SIGSEGV",  # see tests/fake/strike.cc
    "die:trap": "the worker was ended by SIGILL",
    "die:syscall": "the worker was ended by SIGSYS (a system call that its jail forbids)",
    "grow": "the worker exited with code 9; it said last: the fake worker gets no more memory",
}
# A sanitizer's shadow memory bears no limit of address space, which is what a worker that grows runs into.
if SANITIZED:
    del DEATHS["grow"]
NONSENSE = "the worker sent a message with too many segments"
CLOSED = "the worker closed its connection but did not end"
LATE_MS = 700


def late(moment):
    """What the host says of a worker that does not answer at a moment of its start."""
    if moment in ("constructor", "before-hello", "hello"):
        return f"the worker's hello took longer than {LATE_MS} ms"
    if moment == "confirm":
        return f"the worker's tightening of its jail took longer than {LATE_MS} ms"
    return f"creating the VM in the worker took longer than {LATE_MS} ms"


def deadline(moment):
    kind = "hello" if moment in STARTING[:4] else "create"
    return f"fault-deadline={kind}:{LATE_MS}"


class WorkerThatFailsToStart(FaultTest):
    """No VM came of it: 125, the error is the outcome, and nothing is kept."""

    may_make_forbidden_calls = True

    def refused(self, fault, moment, code, message, words=""):
        began = time.monotonic()
        result = self.fake(fault=f"fault={fault}:{moment} {words}", kernel="hello", name=moment)
        elapsed = time.monotonic() - began
        what = f"{fault} at {moment}: {result.out}\n{result.err}"
        self.assertEqual(self.what_happened(result), ("startFailed", code, message), what)
        self.assertEqual(result.code, 125, what)
        self.assertNotIn("hello from the guest", result.err, what)  # where a guest is heard with --json
        return elapsed

    def at_each_moment(self, check):
        """Side by side, as most of them wait."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for moment, done in [(moment, pool.submit(check, moment)) for moment in STARTING]:
                with self.subTest(moment):
                    done.result()
        self.assert_neighbour_well()

    def test_death_is_told_with_its_cause(self):
        self.at_each_moment(lambda moment: [self.refused(fault, moment, "workerDied", text)
                                            for fault, text in DEATHS.items()])

    def test_silence_ends_with_the_deadline(self):
        for fault in ("silent", "half"):
            self.at_each_moment(lambda moment: self.assertGreaterEqual(
                self.refused(fault, moment, "deadlineExceeded", late(moment), deadline(moment)), LATE_MS / 1000))

    def test_nonsense_is_named(self):
        self.at_each_moment(lambda moment: self.refused("nonsense", moment, "protocol", NONSENSE))

    def test_closed_connection_of_a_living_worker_is_named(self):
        self.at_each_moment(lambda moment: self.refused("close", moment, "workerDied", CLOSED))

    def test_too_late_an_answer_is_late(self):
        self.at_each_moment(lambda moment: self.refused("slow:60000", moment, "deadlineExceeded", late(moment),
                                                        deadline(moment)))

    def test_own_error_arrives_whole(self):
        for moment in STARTING[2:]:
            with self.subTest(moment):
                result = self.fake(fault=f"fault=error:{moment}")
                self.assertEqual(result.code, 125, result.err)
                self.assertEqual(result.json["error"], {"code": "resourceExhausted",
                                                        "message": f"the fake backend fails at {moment}",
                                                        "hint": "leave fault=error out", "retryable": True})

    def test_answers_that_nobody_asked_for_end_no_more_than_the_vm(self):
        # What the host makes of a forged answer depends on which question it meets: the VM runs or it does not.
        for moment in STARTING[2:]:
            with self.subTest(moment):
                result = self.fake(fault=f"fault=twice:{moment}", kernel="hello")
                self.assertIn(result.code, (0, 1, 125, 126), result.out)
                self.assertTrue(result.json.get("error", {}).get("message") or result.json.get("outcome"), result.out)
        self.assert_neighbour_well()

    def test_calls_without_end_are_refused(self):
        for moment in ("create", "start"):
            with self.subTest(moment):
                result = self.fake(fault=f"fault=flood:calls:{moment}")
                self.assertEqual(result.code, 125)
                self.assertEqual(self.what_happened(result)[2], "the worker sent too many unfinished calls")
        self.assert_neighbour_well()


class WorkerThatIsSlowOrLoud(FaultTest):
    def test_answers_in_time_are_good_however_late(self):
        for moment in STARTING:
            with self.subTest(moment):
                began = time.monotonic()
                result = self.fake(fault=f"fault=slow:100:{moment}", kernel="hello")
                self.assertEqual((result.code, self.what_happened(result)),
                                 (0, ("guest", "powerOff", "the guest powered off")), result.out)
                self.assertGreaterEqual(time.monotonic() - began, 0.1, "it was late")
                self.assertIn("hello from the guest", result.err)

    def test_flood_of_log_lines_is_bounded_and_harms_nobody(self):
        for moment in (*STARTING, "running"):
            with self.subTest(moment):
                kernel = "hello" if moment != "running" else "loop"
                self.check("run", "--backend", "fake", "--name", "loud", "--memory", "8M", "--kernel", guest(kernel),
                           "--timeout", "2", "--cmdline", f"fault=flood:log:{moment}",
                           code=0 if moment != "running" else 124)
                log = self.check("logs", "--vmm", "loud").out
                self.assertIn("the fake worker has nothing to say", log)
                self.assertLess(len(log), 400_000, "of 5 MB")
                self.check("rm", "loud")
        self.assert_neighbour_well()


class WorkerThatFailsLater(FaultTest):
    may_make_forbidden_calls = True

    def died(self, fault, message, code="workerDied", cause="unknown"):
        began = time.monotonic()
        result = self.fake("--timeout", "30", fault=f"fault={fault}:running")
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual((result.code, self.what_happened(result)), (1, ("workerDied", cause, message)), result.out)
        self.assertEqual(result.json["outcome"]["error"]["code"], code)
        return result

    def test_death_of_a_running_vm_is_told_with_its_cause(self):
        for fault, text in DEATHS.items():
            with self.subTest(fault):
                result = self.died(fault, text)
                number = re.search(r"SIG([A-Z]+)", text)
                expected = ({"signal": getattr(signal, "SIG" + number[1])} if number
                            else {"code": int(re.search(r"code (\d)", text)[1])})
                self.assertEqual(result.json["outcome"]["workerExit"], expected)
        self.assert_neighbour_well()

    @unittest.skipIf(SANITIZED, "a worker that grows is not bounded there")
    def test_last_log_lines_are_told(self):
        result = self.died("grow", DEATHS["grow"])
        self.assertEqual(result.json["outcome"]["lastLog"][-1], "the fake worker gets no more memory")

    def test_broken_connections_of_a_running_vm_are_named(self):
        self.died("nonsense", NONSENSE, "protocol")
        self.died("close", CLOSED)
        self.died("flood:calls", "the worker sent too many unfinished calls", "protocol")
        self.died("flood:events", "the worker sent more events than any VM needs", "protocol", "workerFault")
        self.assert_neighbour_well()

    def test_first_end_counts_whatever_else_is_claimed(self):
        result = self.fake(fault="fault=lie:order:running")
        self.assertEqual((result.code, self.what_happened(result)), (1, ("guest", "panic", "the first end")))
        self.assertEqual(self.ends_noted(result), 1)
        result = self.fake(fault="fault=lie:cause:running")
        self.assertEqual((result.code, self.what_happened(result)),
                         (1, ("guest", "unknown", "of a cause that nobody knows")))
        self.assert_neighbour_well()

    def test_ends_without_end_are_one(self):
        result = self.fake(fault="fault=flood:ends:running")
        self.assertEqual((result.code, self.what_happened(result)), (0, ("guest", "powerOff", "")))
        self.assertEqual(self.ends_noted(result), 1)
        self.assert_neighbour_well()

    def ends_noted(self, result):
        return [timing["phase"] for timing in result.json["timings"]].count("guest-ended")

    def test_nothing_changes_what_has_ended(self):
        for fault in ("exit", "die:segv", "silent", "nonsense", "half", "close", "flood:log", "flood:calls", "twice",
                      "lie:order", "lie:cause", "grow"):
            with self.subTest(fault):
                result = self.fake(fault=f"fault={fault}:after-ended", kernel="hello")
                self.assertEqual((result.code, self.what_happened(result)),
                                 (0, ("guest", "powerOff", "the guest powered off")))
        self.assert_neighbour_well()


class WorkerThatFailsAVerb(FaultTest):
    may_make_forbidden_calls = True

    def started(self, name, fault):
        """A VM in the state in which the verb of its fault is used."""
        self.fake_detached(name, fault=fault)
        if ":resume" in fault:
            self.check("pause", name)

    def test_death_is_told_to_who_asked_and_to_who_waits(self):
        for moment, verb in VERBS.items():
            for fault in ("exit", "die:segv", "die:syscall"):
                with self.subTest(f"{fault} at {moment}"):
                    self.started("vm", f"fault={fault}:{moment}")
                    waiting = self.start("wait", "vm")
                    result = self.run_vmmhost(verb, "vm")
                    self.assertEqual(result.code, 125, result.err)
                    self.assertIn(DEATHS[fault], result.err)
                    waited = self.finish(waiting, 10)
                    self.assertEqual(waited.code, 1, waited.err)
                    self.assertIn(DEATHS[fault], waited.out)
                    self.check("rm", "vm")
        self.assert_neighbour_well()

    def test_error_is_told_whole_and_the_vm_goes_on(self):
        for moment, verb in VERBS.items():
            with self.subTest(moment):
                self.started("vm", f"fault=error:{moment}")
                result = self.run_vmmhost(verb, "vm", "--json")
                self.assertEqual(result.code, 125)
                self.assertEqual(result.json["error"], {"code": "resourceExhausted",
                                                        "message": f"the fake backend fails at {moment}",
                                                        "hint": "leave fault=error out", "retryable": True})
                self.assertEqual(self.state("vm"), "paused" if moment == "resume" else "running")
                self.check("rm", "-f", "vm")

    def test_broken_protocol_ends_the_vm_and_is_named(self):
        for moment, verb in VERBS.items():
            with self.subTest(moment):
                self.started("vm", f"fault=nonsense:{moment}")
                result = self.run_vmmhost(verb, "vm")
                self.assertEqual(result.code, 125)
                self.assertIn(NONSENSE, result.err)
                self.assertEqual(self.run_vmmhost("wait", "vm").code, 1)
                self.check("rm", "vm")
        self.assert_neighbour_well()

    def test_silence_ends_with_the_deadline_and_the_vm_can_be_ended(self):
        # Side by side: each waits for the whole deadline.
        asked = {}
        for fault in ("silent", "half", "slow:60000"):
            for moment, verb in VERBS.items():
                name = fault.split(":")[0] + moment
                self.started(name, f"fault={fault}:{moment}")
                asked[name] = self.start(verb, name)
        began = time.monotonic()
        self.assert_neighbour_well()
        self.assertEqual(self.check("ps").out.count("\n"), len(asked) + 2)
        for name, process in asked.items():
            result = self.finish(process, 15)
            self.assertEqual(result.code, 125, f"{name}: {result.err}")
            self.assertIn("took longer than", result.err, name)
        self.assertLess(time.monotonic() - began, 15)
        for name in asked:
            self.check("rm", "-f", name)
        self.assert_neighbour_well()

    def test_late_answer_is_good(self):
        for moment, verb in VERBS.items():
            with self.subTest(moment):
                self.started("vm", f"fault=slow:200:{moment}")
                began = time.monotonic()
                self.check(verb, "vm")
                self.assertGreaterEqual(time.monotonic() - began, 0.2, "it was late")
                self.check("rm", "-f", "vm")


if __name__ == "__main__":
    unittest.main()
