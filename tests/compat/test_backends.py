"""Plugins and workers of then, under today's host."""
import json
import os
import unittest

from compat_harness import PLUGINS, CompatTest, guest

# What a backend that plays guests says of one that was written later. Its cases say nothing about contracts.
UNKNOWN_GUEST = "the fake backend does not play the guest"


class FakeBackend(CompatTest):
    """tests/fake as it was: a plugin in C++ that reads the configuration with Cap'n Proto, and a worker of the SDK."""

    def test_conforms(self):
        self.environment["TMPDIR"] = os.path.join(self.folder, "home")
        plugin = os.path.join(PLUGINS, "vmmhost-backend-fake.so")
        result = self.run_vmmhost("conformance", "--plugin", plugin, "--json", timeout=500)
        self.assertIn(result.code, (0, 1), result.err)
        found = result.json
        failed = {case["name"]: case["detail"] for case in found["cases"]
                  if case["result"] == "failed" and UNKNOWN_GUEST not in case["detail"]}
        self.assertEqual(failed, {})
        passed = [case["name"] for case in found["cases"] if case["result"] == "passed"]
        self.assertGreaterEqual(len(passed), 40, found["counts"])

    def test_policy_of_then_is_told(self):
        info = self.detached("vm", "fake")
        self.assertIn("seccomp policy: worker-static, OLD", "\n".join(info["jail"]))
        self.check("rm", "-f", "vm")

    def test_faults_of_its_own_server(self):
        """With a fault it serves the protocol itself, without the SDK."""
        for fault, kernel, code in (("exit:7:running", "loop", 1), ("error:create", "loop", 125),
                                    ("slow:10:hello", "hello", 0)):
            with self.subTest(fault):
                self.check("run", "--backend", "fake", "--rm", "--kernel", guest(kernel), "--cmdline",
                           "fault=" + fault, code=code)


class PlainBackend(CompatTest):
    """A plugin in C that reads JSON and uses each field of the interface, and a worker that uses rings and devices."""

    def test_is_listed_as_it_says(self):
        plain, = [entry for entry in self.check("backends", "--json").json if entry["name"] == "plain"]
        self.assertTrue(plain["usable"])
        self.assertEqual(plain["summary"], "greets, and runs nothing")
        self.assertEqual(plain["version"], "1.1")
        self.assertEqual(plain["acceleration"], "emulated")
        self.assertEqual(plain["capabilities"], ["boot-pvh", "console-serial", "plain"])
        self.assertEqual(plain["instructionsPerSecond"], 1100000)

    def test_runs(self):
        result = self.check("run", "--backend", "plain", "--name", "vm", "--memory", "32M", "--cmdline", "a b",
                            "--kernel", guest("hello"))
        self.assertEqual(result.out, "greet: name vm, cmdline a b, memory 33554432, kernel, device, counters, rings\n")
        info = self.inspect("vm")
        self.assertEqual(info["outcome"]["cause"], "powerOff")
        self.assertEqual(info["outcome"]["detail"], "said it")
        self.assertIn("the plain worker was here", self.check("logs", "--vmm", "vm").out)
        self.check("rm", "vm")

    def test_refuses_by_name(self):
        disk = os.path.join(self.folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(4096)
        error = json.loads(self.check("run", "--backend", "plain", "--kernel", guest("hello"), "--disk", disk, "--json",
                                      code=125).out)["error"]
        self.assertEqual(error["code"], "unsupported")
        self.assertEqual(error["message"], "backend plain: disks: not served")
        self.assertEqual(error["hint"], "leave --disk out")


if __name__ == "__main__":
    unittest.main()
