"""A control client of then drives a supervisor of today through every method that it knows."""
import fcntl
import json
import os
import socket
import subprocess
import unittest

from compat_harness import DEADLINE, PLUGINS, PROGRAMS, STAGE, THEN, CompatTest, guest

CLIENT = os.path.join(PROGRAMS, "client")


class Client(CompatTest):
    def calls(self, where, *words, **options):
        """The lines that the client prints, as dictionaries."""
        done = subprocess.run([CLIENT, where, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=DEADLINE, env=self.environment, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def results(self, lines):
        """call -> results; none failed."""
        self.assertEqual([line for line in lines if "failed" in line], [])
        return {line["call"]: line["results"] for line in lines if "call" in line}

    def control(self, name):
        return os.path.join(self.folder, "run", name, "control")


class OldClient(Client):
    def test_every_method(self):
        config = os.path.join(self.folder, "vm.json")
        with open(config, "w") as file:
            json.dump({"consoles": [{"kind": "serial"}, {"kind": "virtio"}], "balloon": {"targetSize": "1M"}}, file)
        self.detached("vm", "fake", "-f", config, kernel="serial_echo")
        # On a connection of its own, which nothing is written to when the supervisor goes.
        waiter = subprocess.Popen([CLIENT, self.control("vm"), 'hello={"clientMajor": 1}', "&wait", "pause", "resume"],
                                  stdout=subprocess.PIPE, text=True, env=self.environment)
        self.background.append(waiter)
        self.assertEqual([json.loads(waiter.stdout.readline())["call"] for _ in range(3)], ["hello", "pause", "resume"])
        lines = self.calls(
            self.control("vm"), 'hello={"clientMajor": 1, "clientMinor": 1, "build": "then"}', "started", "info",
            "watch", 'console={"replayBytes": 4096, "input": true, "port": 0}', "type=good morning", "pause", "resume",
            'setBalloon={"target": "4194304"}', "balloon", 'resizeConsole={"port": 1, "columns": 80, "rows": 25}',
            "detach", "shutdown")
        found = self.results(lines)
        self.assertEqual(found["hello"]["major"], 1)
        self.assertGreaterEqual(found["hello"]["minor"], 1)
        self.assertIn("vmmhost", found["hello"]["build"])
        for call in ("pause", "resume", "setBalloon", "resizeConsole", "shutdown"):
            self.assertEqual(found[call], {}, call)
        self.assertEqual(found["console"], "echo ready\n")
        self.assertEqual(found["type"], "good morning\n")
        self.assertEqual(found["balloon"], {"target": "4194304", "actual": "4194304"})
        # Only who started the VM can detach from it: the error arrives whole.
        error = found["detach"]["error"]
        self.assertEqual(error["code"], "failedPrecondition")
        self.assertIn("started", error["message"])

        info = found["info"]["info"]
        self.assertEqual(info["name"], "vm")
        self.assertEqual(info["backend"], "fake")
        self.assertEqual(info["state"], "running")
        self.assertGreater(info["supervisorPid"], 0)
        self.assertGreater(info["workerPid"], 0)
        self.assertGreater(int(info["startedUnixMs"]), 0)
        self.assertEqual(info["config"]["memory"]["size"], str(64 << 20))
        self.assertEqual([console["kind"] for console in info["config"]["consoles"]], ["serial", "virtio"])
        self.assertLessEqual({"balloon", "console-size"}, set(info["abilities"]))
        self.assertEqual(len(info["counters"]["names"]), len(info["counters"]["values"]))
        self.assertTrue(info["jail"])
        self.assertTrue(info["timings"])
        self.assertTrue(info["detached"])
        self.assertEqual(found["started"]["info"]["state"], "running")

        states = [line["changed"]["state"] for line in lines if "changed" in line]
        self.assertEqual(states[:2], ["paused", "running"])
        waited = self.results([json.loads(line) for line in waiter.communicate(timeout=DEADLINE)[0].splitlines()])
        self.assertEqual(waiter.returncode, 0)
        outcome = waited["wait"]["outcome"]
        self.assertEqual((outcome["kind"], outcome["cause"], outcome["exitCode"]), ("guest", "powerOff", 0))
        self.check("rm", "vm")

    def test_reset_and_stop(self):
        self.detached("vm", "fake")
        lines = self.calls(self.control("vm"), 'hello={"clientMajor": 1, "clientMinor": 1}', "reset",
                           'stop={"kind": "stopped", "reason": "by an old client"}')
        found = self.results(lines)
        self.assertEqual(found["reset"], {})
        outcome = found["stop"]["outcome"]
        self.assertEqual((outcome["kind"], outcome["exitCode"], outcome["detail"]),
                         ("stopped", 143, "by an old client"))
        self.assertEqual(outcome["workerExit"], {"none": None})
        self.check("rm", "vm")

    def test_another_major_version_is_told(self):
        self.detached("vm", "fake")
        error = self.results(self.calls(self.control("vm"), 'hello={"clientMajor": 2}'))["hello"]["error"]
        self.assertEqual(error["code"], "protocol")
        self.check("stop", "vm")
        self.check("rm", "vm")

    def test_what_is_not_there_is_an_error(self):
        self.detached("vm", "fake")
        found = self.results(self.calls(
            self.control("vm"), 'hello={"clientMajor": 1}',
            'console={"replayBytes": 0, "input": false, "port": 7}', "balloon"))
        self.assertIn("7", found["console"]["error"]["message"])
        self.assertEqual(found["balloon"]["error"]["code"], "unsupported")
        self.check("stop", "vm")
        self.check("rm", "vm")


class OldStarter(Client):
    """A command of then that starts a supervisor of today: its request, and its connection, which is the lifeline."""

    def launch(self, name):
        """The starter's end of the control connection."""
        request = {"config": {"name": name, "boot": {"kernel": {"path": guest("loop")}}, "memory": {"size": 64 << 20}},
                   "backend": "fake", "workingDirectory": self.folder, "pluginPath": PLUGINS,
                   "runtimeDirectory": os.path.join(self.folder, "run"),
                   "stateDirectory": os.path.join(self.folder, "state")}
        words = subprocess.run(["capnp", "convert", "json:binary", "-I" + os.environ["COMPAT_CAPNP_INCLUDE"],
                                os.path.join(THEN, "schemas", "host.capnp"), "LaunchRequest"],
                               input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True).stdout
        # Out of the way of the numbers that a supervisor has them under.
        request = os.memfd_create("request", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        sealed = fcntl.fcntl(request, fcntl.F_DUPFD_CLOEXEC, 10)
        os.close(request)
        os.write(sealed, words)
        fcntl.fcntl(sealed, fcntl.F_ADD_SEALS,
                    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
        ours, theirs = socket.socketpair()
        control = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
        theirs.close()
        supervisor = os.path.join(STAGE, "libexec", "vmmhost", "vmmhost-supervisor")
        place = f'exec "$0" 3<&{control} 4<&{sealed} {control}<&- {sealed}<&-'
        self.background.append(subprocess.Popen(["bash", "-c", place, supervisor], pass_fds=(control, sealed),
                                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                                env=self.environment))
        self.addCleanup(ours.close)
        os.close(control)
        os.close(sealed)
        return ours

    def drive(self, name, *words):
        connection = self.launch(name)
        found = self.results(self.calls(str(connection.fileno()), 'hello={"clientMajor": 1, "clientMinor": 1}',
                                        "started", *words, pass_fds=(connection.fileno(),)))
        connection.close()
        self.assertEqual(found["started"]["info"]["state"], "running")
        return found

    def test_vm_outlives_a_starter_that_detached(self):
        found = self.drive("vm", "detach")
        self.assertEqual(found["detach"], {})
        self.assertEqual(self.state("vm"), "running")
        self.check("stop", "vm")
        self.check("rm", "vm")

    def test_vm_ends_with_a_starter_that_did_not(self):
        self.drive("vm")
        outcome = self.check("wait", "vm", "--json", code=125).json[0]["outcome"]
        self.assertEqual(outcome["kind"], "clientGone")
        self.check("rm", "vm")


if __name__ == "__main__":
    unittest.main()
