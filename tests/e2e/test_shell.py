"""What people and scripts at a shell rely on: exit codes, help, completion, JSON, signals, pipes."""
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import unittest

import harness
from harness import VmmhostTest, backends, flood_lines, guest, is_gone, processes, wait_until

VERBS = ("run ps inspect logs console vsock shutdown stop pause resume reset balloon wait rm backends conformance doctor "
         "version completion").split()
MENU = b"\x1d"


class ShellTest(VmmhostTest):
    backend = backends()[0]

    def given(self, kernel, *more):
        return ("run", "--backend", self.backend, "--rm", "--memory", "64M", "--kernel", guest(kernel), *more)

    def bash(self, script, *words, timeout=60, environment=None, **options):
        done = subprocess.run(["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True,
                              timeout=timeout, env=self.environment if environment is None else environment,
                              cwd=self.folder, **{"stdin": subprocess.DEVNULL, **options})
        return harness.Result(done.returncode, done.stdout, done.stderr)

    def info_when_running(self, name):
        def info():
            result = self.run_vmmhost("inspect", name, "--json")
            return result.json if result.code == 0 and result.json["state"] == "running" else None
        return wait_until(info, 30, f"{name} runs")

    def assert_vm_gone(self, info):
        wait_until(lambda: is_gone(info["supervisorPid"]) and is_gone(info["workerPid"]), 10, "the VM is gone")


class ExitCodes(ShellTest):
    def test_table(self):
        for code, kernel, *more in ((0, "poweroff"), (0, "hello"), (3, "reset"), (124, "loop", "--timeout", "0.3"),
                                    (125, "poweroff", "--cpus", "0"), (125, "poweroff", "--nonsense"),
                                    (127, "poweroff", "--initrd", "/no/such"), (1, "triple_fault")):
            if kernel == "triple_fault" and self.backend != "kvm":
                continue  # cannot be told from a reset
            with self.subTest(f"{kernel} {more}"):
                self.check(*self.given(kernel, *more), code=code)
                told = self.check(*self.given(kernel, *more, "--json"), code=code).json
                if code in (125, 127):  # nothing ran, and there is no outcome
                    self.assertEqual(list(told), ["error"])
                else:
                    self.assertEqual((told["exitCode"], told["outcome"]["exitCode"]), (code, code))
        self.check("run", "--backend", "nosuch", "--kernel", guest("poweroff"), code=127)
        plugins = os.path.join(self.folder, "plugins")
        os.mkdir(plugins, 0o755)
        shutil.copy(os.path.join(os.environ["VMMHOST_TEST_PLUGINS"], "vmmhost-backend-refuses.so"), plugins)
        self.check("run", "--backend", "refuses", "--kernel", guest("poweroff"), code=126,
                   environment={"VMMHOST_PLUGIN_PATH": plugins})

    def test_wait_exits_as_run_would_have(self):
        for name, kernel, code in (("off", "poweroff", 0), ("again", "reset", 3)):
            self.check("run", "--backend", self.backend, "--name", name, "--memory", "64M", "--kernel", guest(kernel),
                       code=code)
            self.check("wait", name, code=code)
        self.check("wait", "off", "again", code=3)
        self.check("wait", "again", "off", "nobody", code=127)
        self.check("rm", "off", "again")
        self.check("rm", "off", code=127)


class Help(ShellTest):
    def flags_of(self, verb):
        """As the completion knows them: made from the definitions."""
        return {flag for flag in self.complete(verb, "-") if flag.startswith("-")}

    def complete(self, *words):
        script = ('source <(vmmhost completion bash); COMP_WORDS=(vmmhost "$@"); COMP_CWORD=$#; _vmmhost; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        path = os.path.dirname(self.command()[-1]) + ":" + self.environment["PATH"]
        return self.bash(script, *words, environment={**self.environment, "PATH": path}).out.split("\n")[:-1]

    def test_verbs_are_these(self):
        text = self.check("--help").out
        self.assertEqual(re.findall(r"^  ([a-z]+) {2,}\S", text.split("ubcommands:")[1], re.M), VERBS)
        self.assertEqual(self.check("-h").out, text)
        self.assertRegex(self.check("--version").out, r"^vmmhost \d+\.\d+\.\d+")

    def test_help_of_every_verb_tells_its_flags(self):
        for verb in VERBS:
            with self.subTest(verb):
                for words in ((verb, "--help"), (verb, "-h")):
                    result = self.check(*words)
                    self.assertEqual(result.err, "")
                    self.assertIn(f"Usage: vmmhost {verb}", result.out)
                told = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)(?=[,\s])", result.out)) - {"-h", "--help", "-f"}
                flags = self.flags_of(verb) - {"-h", "--help", "-f"}
                self.assertEqual(bool(flags), verb not in ("vsock", "completion"), "--json at least")
                self.assertLessEqual(flags, told, "all are told")
                self.assertLessEqual({flag for flag in told if f"  {flag}" in result.out}, flags, "all are completed")

    def test_completion_of_words(self):
        self.assertEqual(set(self.complete("")), {*VERBS, "--help", "--version"})
        self.assertEqual(self.complete("p"), ["ps", "pause"])
        self.assertEqual(self.complete("run", "--ke"), ["--kernel"])
        self.assertLessEqual({"--backend", "--kernel", "--detach", "-d", "--json"}, set(self.complete("run", "-")))
        self.assertEqual(set(self.complete("run", "--backend", "")), {"auto", "kvm", "qemu"})
        self.assertEqual(self.complete("run", "--backend", "q"), ["qemu"])
        path = os.path.join(self.folder, "vmlinux with space")
        open(path, "w").close()
        self.assertEqual(self.complete("run", "--kernel", path[:-6]), [path])
        self.assertEqual(self.complete("completion", ""), ["bash"])

    def test_completion_of_names(self):
        self.check("run", "--backend", self.backend, "--name", "ended", "--memory", "64M", "--kernel",
                   guest("poweroff"))
        self.detached("living", self.backend, kernel="idle")
        for verb in ("stop", "pause", "console", "vsock", "shutdown", "reset", "resume"):
            self.assertEqual(self.complete(verb, ""), ["living"], verb)
        for verb in ("rm", "wait", "logs", "inspect"):
            self.assertEqual(set(self.complete(verb, "")), {"ended", "living"}, verb)
        self.assertEqual(self.complete("rm", "-f", "e"), ["ended"])
        self.check("rm", "-f", "living", "ended")

    def test_completion_in_an_interactive_bash(self):
        master, slave = pty.openpty()
        path = os.path.dirname(self.command()[-1]) + ":" + self.environment["PATH"]
        shell = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], stdin=slave, stdout=slave, stderr=slave,
                                 start_new_session=True, cwd=self.folder,
                                 env={**self.environment, "PATH": path, "PS1": "$ ", "TERM": "dumb",
                                      "INPUTRC": "/dev/null"})
        self.background.append(shell)
        os.close(slave)
        os.set_blocking(master, False)
        seen = b""

        def read_until(text):
            nonlocal seen

            def found():
                nonlocal seen
                try:
                    seen += os.read(master, 65536)
                except BlockingIOError:
                    pass
                return text in seen
            wait_until(found, 30, f"{text} in {seen!r}")
            seen = b""

        os.write(master, b"source <(vmmhost completion bash); echo rea''dy\n")
        read_until(b"ready\r\n")
        os.write(master, b"vmmhost vers\t")
        read_until(b"version ")
        os.write(master, b"\n")
        read_until(b"plugin ABI")
        open(os.path.join(self.folder, "a kernel"), "w").close()
        os.write(master, b"vmmhost inspect --config --kernel a\\ k\t\n")
        read_until(b'"kernel": "a kernel"')
        os.write(master, b"exit\n")
        self.assertEqual(shell.wait(30), 0)
        os.close(master)


class Json(ShellTest):
    """The names of fields are a promise to scripts: adding one is adding it here."""
    TIMING = "phase ns"
    OUTCOME = "kind cause detail exitCode workerExit lastLog timings workerPrivateBytes notes"
    STARTED = "name backend choice supervisorPid workerPid startedUnixMs workerPrivateBytes timings detached"
    LISTED = "name backend state cpus memory startedUnixMs endedUnixMs supervisorPid workerPid detached"
    INSPECTED = ("name backend state supervisorPid workerPid startedUnixMs endedUnixMs config abilities counters "
                 "timings choice detached jail workerPrivateBytes removeOnEnd vsockSocket "
                 "stateBounds supervisorBuild workerBuild")
    CONFIG = {"boot": "kernel cmdline", "cpus": "count max threadsPerCore coresPerSocket",
              "memory": "size maxSize shared hugePages"}

    def assert_fields(self, document, fields):
        self.assertEqual(sorted(document), sorted(fields.split()))

    def document(self, *words, code=0, **options):
        result = self.check(*words, "--json", code=code, **options)
        self.assertEqual(result.out.count("\n\n"), 0)
        self.assertTrue(result.out.endswith("\n"))
        return json.loads(result.out)

    def assert_outcome(self, outcome, timed=True):
        self.assert_fields(outcome, self.OUTCOME)
        self.assertEqual(bool(outcome["timings"]), timed)
        for timing in outcome["timings"]:
            self.assert_fields(timing, self.TIMING)

    def run_named(self, name, kernel, *more):
        return self.document("run", "--backend", self.backend, "--name", name, "--memory", "64M", "--kernel",
                             guest(kernel), *more)

    def test_run(self):
        ended = self.run_named("ended", "poweroff")
        self.assert_fields(ended, self.STARTED + " exitCode outcome")
        self.assert_outcome(ended["outcome"], timed=False)  # they are those of the whole run, beside it
        self.assertEqual((ended["exitCode"], ended["detached"], ended["name"]), (0, False, "ended"))
        self.assert_fields(ended["timings"][0], self.TIMING)
        started = self.run_named("started", "idle", "--detach")
        self.assert_fields(started, self.STARTED)
        self.assertEqual((started["detached"], started["backend"]), (True, self.backend))
        removed = self.document("rm", "-f", "started", "ended")
        self.assertEqual(removed, [{"name": "started", "removed": True}, {"name": "ended", "removed": True}])
        failed = self.document("rm", "started", code=127)[0]
        self.assert_fields(failed, "name removed error")
        self.assert_fields(failed["error"], "code message hint retryable")

    def test_what_is_listed(self):
        self.assertEqual(self.document("ps"), [])
        self.run_named("ended", "poweroff")
        self.run_named("living", "idle", "--detach")
        rows = {row["name"]: row for row in self.document("ps", "-a")}
        self.assert_fields(rows["living"], self.LISTED)
        self.assert_fields(rows["ended"], self.LISTED + " outcome")
        self.assertEqual([row["name"] for row in self.document("ps")], ["living"])
        for name, more in (("living", ""), ("ended", " outcome")):
            info = self.document("inspect", name)
            self.assert_fields(info, self.INSPECTED + more)
            for part, fields in self.CONFIG.items():
                self.assert_fields(info["config"][part], fields)
            self.assert_fields(info["counters"], "names values")
            self.assertTrue(info["jail"])
            self.assertEqual(info["supervisorBuild"], "vmmhost " + self.document("version")["version"])
            self.assertRegex(info["workerBuild"], "^vmmhost[a-z-]* [0-9]")
            bounds = info["stateBounds"]
            self.assert_fields(bounds, "consoleLogs vmLog exitRecord vm user")
            self.assertEqual(int(bounds["vm"]), sum(int(bounds[name]) for name in ("consoleLogs", "vmLog", "exitRecord")))
            self.assertLess(int(bounds["vm"]), int(bounds["user"]))
        self.assertEqual(self.document("inspect", "--config", "--kernel", "k"),
                         {"boot": {"kernel": "k"}, "cpus": {}, "memory": {}})
        self.assert_fields(self.document("logs", "ended"), "name log")
        self.check("rm", "-f", "living", "ended")

    def test_what_is_done_to_a_vm(self):
        self.run_named("vm", "serial_echo", "--detach")
        for verb, done in (("pause", "paused"), ("resume", "resumed"), ("reset", "reset")):
            self.assertEqual(self.document(verb, "vm"), {"name": "vm", "done": done})
        result = self.check("console", "vm", "--json", stdin="x\x04")
        self.assertEqual(list(result.json), ["name", "detached", "outcome"])
        self.assert_outcome(result.json["outcome"])
        waited = self.document("wait", "vm")
        self.assert_fields(waited[0], "name outcome")
        self.assert_outcome(waited[0]["outcome"])
        self.check("rm", "vm")
        for words in (("stop",), ("shutdown", "--timeout", "0.1")):
            self.run_named("vm", "idle", "--detach")
            stopped = self.document(words[0], "vm", *words[1:])
            self.assert_fields(stopped, "name outcome")
            self.assert_outcome(stopped["outcome"])
            self.check("rm", "vm")

    def test_bound_of_a_users_state_is_kept(self):
        """stateBounds: what would exceed it is not started, and leaves nothing."""
        small = {"VMMHOST_STATE_LIMIT": "12M"}
        words = ("run", "--backend", self.backend, "--memory", "64M", "--kernel", guest("poweroff"))
        self.check(*words, "--name", "first", environment=small)
        with open(os.path.join(self.folder, "state", "first", "console.log"), "wb") as file:
            file.write(bytes(2 << 20))
        error = self.document(*words, "--name", "second", code=125, environment=small)["error"]
        self.assertEqual(error["code"], "resourceExhausted")
        self.assertIn("state folder", error["message"])
        self.assertIn("vmmhost rm", error["hint"])
        self.check("rm", "first")
        self.check(*words, "--name", "second", environment=small)
        self.check("rm", "second")

    def test_what_the_machine_has(self):
        plugins = os.path.join(self.folder, "plugins")
        os.mkdir(plugins, 0o755)
        shutil.copy(os.path.join(os.environ["VMMHOST_TEST_PLUGINS"], "vmmhost-backend-noentry.so"), plugins)
        backend = ("name path version description usable acceleration summary hint instructionsPerSecond preference "
                   "capabilities")
        listed = self.document("backends", environment={"VMMHOST_PLUGIN_PATH": plugins})
        for entry in listed:
            self.assert_fields(entry, backend + (" error" if entry["name"] == "noentry" else ""))
            self.assertIn(entry["acceleration"], ("none", "emulated", "hardware"))
        self.assertLessEqual({"kvm", "qemu", "noentry"}, {entry["name"] for entry in listed})
        self.run_named("vm", "idle", "--detach")
        doctor = self.document("doctor")
        self.check("rm", "-f", "vm")
        self.assert_fields(doctor, "ready checks vms")
        self.assertEqual(doctor["vms"], [], "no VM's supervisor is of another build")
        self.assertTrue(doctor["checks"])
        for check in doctor["checks"]:
            self.assert_fields(check, "name status detail fix")
            self.assertIn(check["status"], ("ok", "warning", "problem"))
        self.assert_fields(self.document("version"), "version controlProtocol workerProtocol pluginAbi capnproto")

    def test_errors(self):
        for words, code in ((("stop", "nobody"), "notFound"), (("run",), "invalidArgument"),
                            (("completion", "bash"), "invalidArgument"), (("nonsense",), "invalidArgument")):
            error = json.loads(self.check(*words, "--json", code=127 if code == "notFound" else 125).out)
            self.assert_fields(error, "error")
            is_of_a_field = words == ("run",)  # boot.kernel is missing
            self.assert_fields(error["error"], "code message hint retryable" + (" field" if is_of_a_field else ""))
            self.assertEqual(error["error"]["code"], code)


class Signals(ShellTest):
    def start_on_terminal(self, *words):
        """The command as a shell's foreground job would run: a terminal of its own, which is its controlling one."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        before = termios.tcgetattr(slave)

        def own_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(self.command(*words), stdin=slave, stdout=slave, stderr=slave, env=self.environment,
                                   cwd=self.folder, preexec_fn=own_terminal)
        self.background.append(process)
        os.set_blocking(master, False)
        return process, master, slave, before

    def drain(self, master):
        try:
            while os.read(master, 65536):
                pass
        except OSError:
            pass

    def is_raw(self, slave):
        return not termios.tcgetattr(slave)[3] & termios.ICANON

    def test_terminal_is_as_it_was_on_every_way_out(self):
        def kill(which):
            return lambda process, info, master: os.kill(info[which], signal.SIGKILL)

        def send(number):
            return lambda process, info, master: process.send_signal(number)

        def type_keys(keys):
            return lambda process, info, master: os.write(master, keys)

        for what, kernel, code, act, *more in (
                ("power-off", "serial_echo", 0, type_keys(b"x\x04")),
                ("kill from the menu", "idle", 143, type_keys(MENU + b"k")),
                ("detach from the menu", "idle", 0, type_keys(MENU + b"d")),
                ("SIGINT", "idle", 130, send(signal.SIGINT)),
                ("SIGTERM", "idle", 143, send(signal.SIGTERM)), ("SIGHUP", "idle", 129, send(signal.SIGHUP)),
                ("SIGQUIT", "idle", -signal.SIGQUIT, send(signal.SIGQUIT)),
                ("SIGABRT", "idle", -signal.SIGABRT, send(signal.SIGABRT)),
                ("SIGKILL of the supervisor", "idle", 125, kill("supervisorPid")),
                ("SIGKILL of the worker", "idle", 1, kill("workerPid")),
                ("timeout", "idle", 124, lambda *_: None, "--timeout", "2")):
            with self.subTest(what):
                process, master, slave, before = self.start_on_terminal(*self.given(kernel, "--name", "vm", *more))
                info = self.info_when_running("vm")
                wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
                process.send_signal(signal.SIGWINCH)
                act(process, info, master)
                wait_until(lambda: self.drain(master) or process.poll() is not None, 30, "the command ends")
                self.assertEqual(process.returncode, code)
                self.assertEqual(termios.tcgetattr(slave), before)
                if what.startswith("detach"):
                    self.assertEqual(self.state("vm"), "running")
                    self.check("stop", "vm")
                self.assert_vm_gone(info)
                self.assertEqual(self.check("ps", "-a", "--json").json, [])

    def test_window_size_does_not_disturb(self):
        process, master, slave, _ = self.start_on_terminal(*self.given("serial_echo", "--name", "vm"))
        self.info_when_running("vm")
        wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
        for columns in (1, 0, 500, 80):
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", columns, columns, 0, 0))
            process.send_signal(signal.SIGWINCH)
        self.drain(master)
        os.write(master, b"still here")
        self.heard(master, b"still here")
        os.write(master, b"\x04")
        wait_until(lambda: self.drain(master) or process.poll() is not None, 30, "the command ends")
        self.assertEqual(process.returncode, 0)

    def heard(self, master, text):
        seen = b""

        def arrived():
            nonlocal seen
            try:
                seen += os.read(master, 4096)
            except BlockingIOError:
                pass
            return text in seen
        wait_until(arrived, 30, f"{text!r} on the terminal")

    def test_terminal_that_is_not_the_controlling_one_is_as_any(self):
        """A program opens a pseudo-terminal and starts the command on it, and that is all."""
        def start(*words):
            process = subprocess.Popen(self.command(*words), stdin=slave, stdout=slave, stderr=slave,
                                       env=self.environment, cwd=self.folder, start_new_session=True)
            self.background.append(process)
            return process

        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        os.set_blocking(master, False)
        before = termios.tcgetattr(slave)
        process = start(*self.given("serial_echo", "--name", "vm"))
        self.info_when_running("vm")
        wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
        os.write(master, b"key by key")
        self.heard(master, b"key by key")
        os.write(master, MENU + b"d")
        wait_until(lambda: self.drain(master) or process.poll() is not None, 30, "the command ends")
        self.assertEqual((process.returncode, termios.tcgetattr(slave)), (0, before))
        process = start("console", "vm")
        wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
        os.write(master, b"and again")
        self.heard(master, b"and again")
        os.write(master, b"\x04")
        wait_until(lambda: self.drain(master) or process.poll() is not None, 30, "the command ends")
        self.assertEqual((process.returncode, termios.tcgetattr(slave)), (0, before))

    # A shell whose background job the command is, and which brings it to the foreground as shells do with a job that
    # runs: without a signal.
    SHELL = """if True:
        import os, signal, subprocess, sys
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        def own_group():
            os.setpgid(0, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        job = subprocess.Popen(sys.argv[1:], preexec_fn=own_group)
        signal.signal(signal.SIGUSR1, lambda *_: os.tcsetpgrp(0, job.pid))
        sys.exit(job.wait())
    """

    def start_in_background(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        os.set_blocking(master, False)
        before = termios.tcgetattr(slave)

        def own_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        words = self.given("serial_echo", "--name", "vm")
        shell = subprocess.Popen([sys.executable, "-c", self.SHELL, *self.command(*words)], stdin=slave, stdout=slave,
                                 stderr=slave, env=self.environment, cwd=self.folder, preexec_fn=own_terminal)
        self.background.append(shell)
        self.info_when_running("vm")
        self.heard(master, b"echo ready")
        self.assertFalse(self.is_raw(slave))
        return shell, master, slave, before

    def bring_to_foreground(self, shell, master):
        shell.send_signal(signal.SIGUSR1)
        wait_until(lambda: os.tcgetpgrp(master) != shell.pid, 30, "the job is in the foreground")

    def test_background_job_leaves_the_terminal_alone_until_it_comes_to_the_foreground(self):
        shell, master, slave, before = self.start_in_background()
        os.write(master, b"for the shell\n")
        self.check("pause", "vm")  # the command and its VM go on
        self.check("resume", "vm")
        self.assertNotIn("for the shell", self.check("logs", "vm").out)
        self.assertFalse(self.is_raw(slave))
        self.bring_to_foreground(shell, master)
        os.write(master, b"for the guest\n")
        wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
        wait_until(lambda: "for the guest" in self.check("logs", "vm").out, 30, "the guest hears it")
        os.write(master, b"\x04")
        wait_until(lambda: self.drain(master) or shell.poll() is not None, 30, "the command ends")
        self.assertEqual(shell.returncode, 0)
        self.assertEqual(termios.tcgetattr(slave), before)

    def test_job_that_came_to_the_foreground_has_the_terminal_once_its_guest_speaks(self):
        shell, master, slave, before = self.start_in_background()
        self.bring_to_foreground(shell, master)
        self.check("reset", "vm")
        wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
        os.write(master, b"\x04")
        wait_until(lambda: self.drain(master) or shell.poll() is not None, 30, "the command ends")
        self.assertEqual(shell.returncode, 0)
        self.assertEqual(termios.tcgetattr(slave), before)

    def test_terminal_is_the_shells_again_after_detaching(self):
        process, master, slave, before = self.start_on_terminal(*self.given("idle", "--name", "vm"))
        self.info_when_running("vm")
        wait_until(lambda: self.is_raw(slave), 30, "the terminal is raw")
        os.write(master, MENU + b"d")
        wait_until(lambda: self.drain(master) or process.poll() is not None, 30, "the command ends")
        # ^C and ^\ belong to the terminal again, and not to the VM.
        self.assertEqual(process.returncode, 0)
        self.assertEqual(termios.tcgetattr(slave), before)
        self.assertEqual(self.state("vm"), "running")
        self.check("stop", "vm")

    def test_signals_without_a_terminal(self):
        for number, code in ((signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143),
                             (signal.SIGQUIT, -signal.SIGQUIT), (signal.SIGKILL, -signal.SIGKILL)):
            with self.subTest(signal.Signals(number).name):
                process = self.start(*self.given("idle", "--name", "vm"))
                info = self.info_when_running("vm")
                process.send_signal(signal.SIGWINCH)
                process.send_signal(number)
                self.assertEqual(self.finish(process).code, code)
                self.assert_vm_gone(info)
                self.assertEqual(self.check("ps", "-a", "--json").json, [])

    def test_ignored_signals_stay_ignored(self):
        """As nohup does it with SIGHUP, and a shell without job control with SIGINT of what it starts with &."""
        for name, number in (("HUP", signal.SIGHUP), ("INT", signal.SIGINT)):
            with self.subTest(name):
                process = self.start(*self.given("idle", "--name", "vm"),
                                     preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
                info = self.info_when_running("vm")
                process.send_signal(number)
                process.send_signal(number)
                self.check("pause", "vm")
                self.assertEqual(self.state("vm"), "paused")
                process.terminate()
                self.assertEqual(self.finish(process).code, 143)
                self.assert_vm_gone(info)


class Pipes(ShellTest):
    def test_in_the_middle_of_a_pipeline(self):
        script = r'''printf 'abc\x04' | "$@" | tr a-z A-Z; echo "${PIPESTATUS[*]}"'''
        result = self.bash(script, *self.command(*self.given("serial_echo")))
        self.assertEqual(result.out, "ECHO READY\nABCECHO DONE\n0 0 0\n", result.err)

    def test_in_a_pipeline_whose_reader_leaves(self):
        result = self.bash('"$@" | head -n 1; echo "${PIPESTATUS[*]}"', *self.command(*self.given("flood")))
        self.assertEqual(result.out, flood_lines(1) + "125 0\n", result.err)
        self.assertIn("Broken pipe", result.err)

    def test_files_by_descriptor(self):
        """Of the command's own, which its supervisor does not have."""
        words = [word for word in self.command(*self.given("poweroff")) if not word.endswith("poweroff.elf")]
        words.remove("--kernel")
        for what, script, code, *texts in (
                ("a file", '"$@" --kernel /dev/fd/3 3<"$KERNEL"', 0),
                ("standard input", '"$@" --kernel /dev/stdin <"$KERNEL"', 0),
                ("a file without a name", 'cp "$KERNEL" k; exec 5<k; rm k; "$@" --kernel /proc/self/fd/5', 0),
                ("a pipe", '"$@" --kernel <(cat "$KERNEL")', 125, "boot.kernel: /dev/fd/", "is a pipe"),
                ("a folder", '"$@" --kernel /dev/fd/3 3</', 125, "boot.kernel: /dev/fd/3 is a folder"),
                ("a device", '"$@" --kernel /dev/fd/3 3</dev/null', 125, "boot.kernel: /dev/fd/3 is a", "device"),
                ("nothing", '"$@" --kernel /dev/fd/3', 127, "boot.kernel: /dev/fd/3 is not open"),
                ("a disk", '"$@" --kernel "$KERNEL" --disk /dev/fd/4 4< <(true)', 125,
                 "disks[0]: /dev/fd/4 is a pipe")):
            with self.subTest(what):
                result = self.bash(script, *words, environment={**self.environment, "KERNEL": guest("poweroff")})
                self.assertEqual(result.code, code, result.out + result.err)
                for text in texts:
                    self.assertIn(text, result.err)

    def test_standard_input_that_is_the_kernel_is_not_typed(self):
        words = [word for word in self.command(*self.given("serial_echo", "--name", "vm")) if not word.endswith(".elf")]
        words[words.index("--kernel") + 1:words.index("--kernel") + 1] = ["/dev/stdin"]
        with open(guest("serial_echo"), "rb") as kernel:
            process = subprocess.Popen(words, stdin=kernel, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       env=self.environment, cwd=self.folder)
        self.background.append(process)
        self.info_when_running("vm")
        wait_until(lambda: "echo ready" in self.check("logs", "vm").out, 30, "the guest listens")
        self.check("console", "vm", stdin="x\x04")
        result = self.finish(process)
        self.assertEqual((result.code, result.out), (0, "echo ready\nxecho done\n"), result.err)

    def test_under_timeout(self):
        for option, code in ((), 124), (("--signal=KILL",), 137), (("--signal=INT", "--preserve-status"), 130):
            with self.subTest(option):
                result = self.bash('exec timeout "$@"', *option, "1", *self.command(*self.given("idle")))
                self.assertIn(result.code, (code, -9 if code == 137 else code), result.err)
                wait_until(lambda: not processes(self.folder), 5, "the VM is gone")

    def test_under_nohup(self):
        result = self.bash('set -o pipefail; nohup "$@" <&- 2>&1 | cat', *self.command(*self.given("hello")))
        self.assertEqual(result.code, 0, result.out)
        self.assertIn("hello from the guest", result.out)

    def test_many_at_once_in_one_shell(self):
        script = 'for i in 1 2 3; do "$@" & jobs+=($!); done; for job in "${jobs[@]}"; do wait $job || exit; done'
        result = self.bash(script, *self.command(*self.given("hello")))
        self.assertEqual(result.code, 0, result.err)
        # They write to one pipe, and not whole lines at a time.
        self.assertEqual(sorted(result.out), sorted(3 * "hello from the guest\ngood bye\n"))


if __name__ == "__main__":
    unittest.main()
