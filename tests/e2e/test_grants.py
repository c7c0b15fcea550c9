"""VMs whose worker has a policy of grants, with the backend of tests/fake, and what --explain-jail tells of a call that a
policy does not allow."""
import os
import signal
import unittest

from harness import OrdinaryUserTest, VmmhostTest, guest, is_gone, wait_until

FAKE_PLUGINS = os.environ["VMMHOST_FAKE_PLUGINS"]


class Grants(VmmhostTest):
    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = FAKE_PLUGINS

    def jail_of(self, *arguments):
        self.check("run", "--backend", "fake", "--name", "vm", "--detach", *arguments, "--kernel", guest("loop"))
        jail = self.inspect("vm")["jail"]
        self.check("stop", "vm")
        return [line for line in jail if line.startswith("seccomp policy: ")]

    def test_composed_policy_runs_a_vm_and_is_shown(self):
        self.assertEqual(self.jail_of("--cmdline", "jail=grants"),
                         ["seccomp policy: grants: vsock-sockets, with 1 instances of epoll"])

    def test_named_policy_is_shown_by_its_name(self):
        self.assertEqual(self.jail_of(), ["seccomp policy: worker-static, with 1 instances of epoll"])

    def test_guest_runs_to_its_end(self):
        result = self.check("run", "--backend", "fake", "--cmdline", "jail=grants", "--kernel", guest("hello"))
        self.assertIn("hello", result.out.lower())


class Explained(VmmhostTest):
    may_make_forbidden_calls = True
    CALL = "system call 41 (socket) with 0x0, 0x0, 0x0, "

    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = FAKE_PLUGINS

    def run_forbidden(self, *arguments, words="", name="vm"):
        return self.run_vmmhost("run", "--backend", "fake", "--name", name, *arguments, "--kernel", guest("loop"),
                                "--cmdline", f"fault=die:syscall:running {words}")

    def test_call_is_in_the_error_and_in_the_log(self):
        for words in ("", "jail=grants"):
            with self.subTest(words=words):
                result = self.run_forbidden("--explain-jail", words=words)
                self.assertEqual(result.code, 1, result.err)
                self.assertIn("ended by SIGSYS", result.err)
                self.assertIn(self.CALL, result.err)
                self.assertIn("no grant allows it", result.err)
                self.assertNotIn("hint: `vmmhost run --explain-jail", result.err)
                log = self.check("logs", "--vmm", "vm").out
                self.assertIn("a filter ended process", log)
                self.assertIn(self.CALL, log)
                self.check("rm", "vm")

    def test_without_the_option_the_hint_names_it(self):
        result = self.run_forbidden()
        self.assertEqual(result.code, 1, result.err)
        self.assertNotIn(self.CALL, result.err)
        self.assertIn("hint: `vmmhost run --explain-jail", result.err)
        self.check("rm", "vm")

    def test_call_before_the_hello_is_explained_as_well(self):
        result = self.run_vmmhost("run", "--backend", "fake", "--rm", "--explain-jail", "--kernel", guest("loop"),
                                  "--cmdline", "fault=die:syscall:constructor")
        self.assertNotEqual(result.code, 0)
        self.assertIn(self.CALL, result.err)

    def test_guest_that_does_no_harm_runs_as_otherwise(self):
        result = self.check("run", "--backend", "fake", "--rm", "--explain-jail", "--kernel", guest("hello"))
        self.assertIn("hello", result.out.lower())
        self.assertNotIn("a filter ended", result.err)

    def test_killed_supervisor_leaves_nothing(self):
        """Its tracer goes with it."""
        self.check("run", "--backend", "fake", "--name", "vm", "--detach", "--explain-jail", "--kernel", guest("loop"))
        info = self.inspect("vm")
        with open(f"/proc/{info['workerPid']}/status") as file:
            self.assertNotIn("TracerPid:\t0\n", file.read())
        os.kill(info["supervisorPid"], signal.SIGKILL)
        wait_until(lambda: is_gone(info["workerPid"]), 10, "the worker is gone")
        self.check("ps")
        self.check("rm", "vm")


class ExplainedPrograms(VmmhostTest):
    """A worker that starts programs, all of which are traced."""

    def test_guest_runs_as_otherwise(self):
        result = self.check("run", "--backend", "qemu", "--rm", "--explain-jail", "--memory", "64M", "--kernel",
                            guest("hello"))
        self.assertIn("hello from the guest", result.out)


class ExplainedUser(OrdinaryUserTest):
    def test_guest_runs_as_otherwise(self):
        result = self.check("run", "--backend", "qemu", "--rm", "--explain-jail", "--memory", "64M", "--kernel",
                            guest("hello"))
        self.assertIn("hello from the guest", result.out)


if __name__ == "__main__":
    unittest.main()
