"""What supervisors of then left, read by today's command. records/run has the runtime folders of supervisors that died,
records/state what is kept of their VMs, and of others that ended in the ways their names tell."""
import json
import os
import shutil
import unittest

from compat_harness import THEN, CompatTest, read

RECORDS = os.path.join(THEN, "records")
# name -> kind, cause, what `wait` exits with
ENDED = {
    "crash": ("guest", "crash", 1),
    "power-off": ("guest", "powerOff", 0),
    "reset": ("guest", "reset", 3),
    "signalled": ("signalled", "unknown", 143),
    "stopped": ("stopped", "unknown", 143),
    "timeout": ("timeout", "unknown", 124),
    "triple-fault": ("guest", "tripleFault", 1),
    "worker-died": ("workerDied", "unknown", 1),
}


class Records(CompatTest):
    def setUp(self):
        super().setUp()
        for kind in ("run", "state"):
            for name in os.listdir(os.path.join(RECORDS, kind)):
                copy = os.path.join(self.folder, kind, name)
                shutil.copytree(os.path.join(RECORDS, kind, name), copy)
                os.chmod(copy, 0o700)  # as a supervisor makes it; a checkout keeps no such mode
                if kind == "run":
                    open(os.path.join(copy, "lock"), "w").close()

    def log_of(self, name, file):
        return read(os.path.join(RECORDS, "state", name, file)).decode()

    def test_list(self):
        rows = {row["name"]: row for row in self.check("ps", "-a", "--json").json}
        self.assertEqual(set(rows), set(ENDED) | {"died"})
        for name, (kind, cause, code) in ENDED.items():
            row = rows[name]
            self.assertEqual((row["state"], row["backend"], row["cpus"], row["memory"]),
                             ("ended", "fake", 1, 64 << 20), name)
            outcome = row["outcome"]
            self.assertEqual((outcome["kind"], outcome["cause"], outcome["exitCode"]), (kind, cause, code), name)
            self.assertGreater(row["endedUnixMs"], row["startedUnixMs"])
        self.assertEqual(rows["died"]["outcome"]["kind"], "supervisorDied")
        table = self.check("ps", "-a").out
        for name in rows:
            self.assertRegex(table, rf"(?m)^{name} +\S+ +ended: ")
        for name in rows:
            self.check("rm", name)

    def test_supervisors_that_died_are_cleared_away(self):
        """One is kept with an outcome that says so; of one that was started with --rm nothing is."""
        self.assertEqual(self.check("ps", "--json").json, [])
        self.assertEqual(os.listdir(os.path.join(self.folder, "run")), [])
        left = os.listdir(os.path.join(self.folder, "state"))
        self.assertIn("died", left)
        self.assertNotIn("died-rm", left)
        with open(os.path.join(RECORDS, "run", "died", "record")) as file:
            pid = dict(line.strip().split("=", 1) for line in file)["supervisorPid"]
        result = self.check("wait", "died", "--json", code=125)
        self.assertIn(f"process {pid}", result.json[0]["outcome"]["detail"])
        self.assertEqual(self.check("logs", "died").out, self.log_of("died", "console.log"))

    def test_inspect_tells_all_that_was_written(self):
        self.check("ps")  # clears away what died

        def present(then, now, where):
            """All that the old text has is in the new one, which may have more."""
            if isinstance(then, dict):
                for key, value in then.items():
                    self.assertIn(key, now, where)
                    present(value, now[key], f"{where}.{key}")
            else:
                self.assertEqual(then, now, where)

        for name in ENDED:
            present(json.loads(self.log_of(name, "exit.json")), self.check("inspect", name).json, name)
            self.assertEqual(self.check("inspect", "--config", name).json["boot"],
                             json.loads(self.log_of(name, "exit.json"))["config"]["boot"])

    def test_wait_exits_as_run_did(self):
        for name, (kind, cause, code) in ENDED.items():
            outcome = self.check("wait", name, "--json", code=code).json[0]["outcome"]
            self.assertEqual((outcome["kind"], outcome["cause"]), (kind, cause), name)
        self.check("ps")

    def test_logs(self):
        self.check("ps")
        for name in ENDED:
            self.assertEqual(self.check("logs", name).out, self.log_of(name, "console.log"))
            self.assertEqual(self.check("logs", "--vmm", name).out, self.log_of(name, "vmmhost.log"))

    def test_rm(self):
        self.check("rm", *ENDED, "died", "died-rm")
        for folder in ("run", "state"):
            self.assertEqual(os.listdir(os.path.join(self.folder, folder)), [])


if __name__ == "__main__":
    unittest.main()
