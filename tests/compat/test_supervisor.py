"""Today's command and a supervisor of then, which a package that was replaced meanwhile leaves running: each verb works,
and what the supervisor lacks is refused by name."""
import json
import os
import subprocess
import unittest

from compat_harness import PROGRAMS, CompatTest, wait_until

SUPERVISOR = os.path.join(PROGRAMS, "supervisor")
CONSOLE = "a console of then\n"


class OldSupervisor(CompatTest):
    def vm(self, *options, name="old"):
        process = subprocess.Popen([SUPERVISOR, os.path.join(self.folder, "run"), os.path.join(self.folder, "state"),
                                    name, *options], stdout=subprocess.PIPE, text=True, env=self.environment)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_looking(self):
        process = self.vm()
        row, = self.check("ps", "--json").json
        self.assertEqual((row["name"], row["backend"], row["state"], row["memory"], row["supervisorPid"]),
                         ("old", "old", "running", 64 << 20, process.pid))
        info = self.check("inspect", "old").json
        self.assertEqual(info["abilities"], ["pause", "reset"])
        self.assertEqual(info["counters"], {"names": ["vcpuExits"], "values": [42]})
        self.assertEqual(info["jail"], ["none: this is no VM"])
        self.assertEqual(self.check("inspect", "--config", "old").json["memory"]["size"], 64 << 20)
        self.assertEqual(self.check("logs", "old").out, CONSOLE)
        self.assertEqual(self.check("logs", "--vmm", "old").out, "a log of then\n")
        self.check("stop", "old")
        self.check("rm", "old")

    def test_verbs_that_change_its_state(self):
        self.vm()
        self.check("pause", "old")
        self.assertEqual(self.check("ps", "--json").json[0]["state"], "paused")
        self.check("resume", "old")
        self.assertEqual(self.check("inspect", "old").json["state"], "running")
        error = json.loads(self.check("reset", "old", "--json", code=125).out)["error"]
        self.assertEqual(error["message"], "backend old cannot reset")
        self.assertEqual(error["hint"], "stop it and start it anew")
        self.assertEqual(self.check("balloon", "old", "8M", "--json").json,
                         {"name": "old", "target": 8 << 20, "actual": 8 << 20})
        self.check("stop", "old")
        self.check("rm", "old")

    def test_streams(self):
        self.vm()
        console, follower = self.start("console", "old"), self.start("logs", "-f", "old")
        self.assertEqual(self.read_until(console, CONSOLE), CONSOLE)
        self.assertEqual(self.read_until(follower, CONSOLE), CONSOLE)
        self.assertEqual(self.check("vsock", "old", "7", stdin="hello\n").out, "hello\n")
        waiter = self.start("wait", "old")
        self.check("shutdown", "old", "--timeout", "20")
        for process in (console, follower, waiter):
            self.assertEqual(self.finish(process).code, 0)
        self.assertEqual(self.check("wait", "old", "--json").json[0]["outcome"]["cause"], "powerOff")
        self.check("rm", "old")

    def test_end(self):
        process = self.vm()
        self.check("stop", "old")
        wait_until(lambda: process.poll() is not None, 10, "the supervisor is gone")
        self.check("wait", "old", code=143)
        self.assertEqual(self.check("ps", "-a", "--json").json[0]["state"], "ended")
        self.check("rm", "old")
        self.vm()
        self.check("rm", "-f", "old")
        self.assertEqual(self.check("ps", "-a", "--json").json, [])

    def test_what_it_lacks_is_refused_by_name(self):
        cases = (("pause", ["pause", "old"], "pause"), ("resume", ["resume", "old"], "resume"),
                 ("reset", ["reset", "old"], "reset"), ("shutdown", ["shutdown", "old"], "shutdown"),
                 ("console", ["console", "old"], "console"), ("info", ["inspect", "old"], "info"),
                 ("balloon", ["balloon", "old"], "balloon"), ("setBalloon", ["balloon", "old", "8M"], "setBalloon"))
        self.vm(*[word for lacking, _, _ in cases for word in ("--lacks", lacking)])
        for _, command, name in cases:
            with self.subTest(name):
                result = self.check(*command, "--json", code=125)
                error = json.loads(result.out)["error"]
                self.assertEqual(error["code"], "unsupported")
                self.assertEqual(error["message"], f"the supervisor of VM old is of a version without {name}")
                self.assertEqual(error["hint"], "start the VM anew with this version")
                self.assertEqual(self.run_vmmhost(*command).err.splitlines()[0], "vmmhost: " + error["message"])
        # Where there is another way, it is taken: one that cannot be asked to shut down is ended.
        result = self.check("shutdown", "old", "--timeout", "5")
        self.assertIn("version without shutdown; ending it by force", result.err)
        self.check("rm", "old")

    def test_further_console_of_one_that_knows_no_others(self):
        self.vm("--minor", "0")
        error = json.loads(self.check("console", "old", "--port", "1", "--json", code=125).out)["error"]
        self.assertEqual(error["message"], "the supervisor of VM old is of a version without further consoles")
        self.check("stop", "old")
        self.check("rm", "old")


if __name__ == "__main__":
    unittest.main()
