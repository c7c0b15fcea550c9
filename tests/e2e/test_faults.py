"""Death of each part, and bad input: reported, with the right exit code, and nothing left."""
import os
import signal
import socket
import subprocess
import time
import unittest

from harness import VmmhostTest, backends, guest, is_gone, wait_until


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
        self.assertIn("supervisorDied", self.check("ps", "-a", "--json").out)
        self.assertEqual(self.run_vmmhost("wait", "gone").code, 125)
        self.check("rm", "gone")

    def test_stopped_supervisor_does_not_hang_ps(self):
        info = self.detached("stuck", self.backend)
        os.kill(info["supervisorPid"], signal.SIGSTOP)
        try:
            self.assertIn("stuck", self.check("ps").out)
        finally:
            os.kill(info["supervisorPid"], signal.SIGCONT)
        self.check("rm", "-f", "stuck")

    def test_stopped_worker_is_ended_by_stop(self):
        info = self.detached("frozen", self.backend)
        os.kill(info["workerPid"], signal.SIGSTOP)
        self.check("stop", "frozen")
        self.check("rm", "frozen")

    def test_neighbour_never_notices(self):
        self.detached("neighbour", self.backend)
        process, info = self.running("victim")
        os.kill(info["workerPid"], signal.SIGKILL)
        self.assertEqual(self.finish(process).code, 1)
        self.assertEqual(self.state("neighbour"), "running")
        self.check("rm", "-f", "neighbour")


class BadInput(VmmhostTest):
    backend = backends()[0]

    def refuse(self, code, names, *arguments):
        result = self.run_vmmhost("run", "--backend", self.backend, "--rm", *arguments)
        self.assertEqual(result.code, code, f"{arguments}\n{result.err}")
        for name in names if isinstance(names, (list, tuple)) else [names]:
            self.assertIn(name, result.err)
        self.assertEqual(len([line for line in result.err.splitlines() if line.startswith("vmmhost:")]), 1, result.err)
        self.assert_nothing_left()

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_kernel_missing(self):
        self.refuse(127, ["boot.kernel", "/no/such/kernel"], "--kernel", "/no/such/kernel")

    def test_kernel_not_given(self):
        self.refuse(125, "kernel")

    def test_kernel_is_no_kernel(self):
        self.refuse(125, "ELF", "--kernel", self.file("text", b"this is no kernel" * 100))

    def test_kernel_truncated(self):
        with open(guest("hello"), "rb") as file:
            self.refuse(125, "kernel", "--kernel", self.file("short", file.read()[:200]))

    def test_kernel_empty(self):
        self.refuse(125, "empty", "--kernel", self.file("empty", b""))

    def test_kernel_is_a_folder(self):
        self.refuse(125, "folder", "--kernel", self.folder)

    def test_kernel_is_a_fifo(self):
        path = os.path.join(self.folder, "fifo")
        os.mkfifo(path)
        self.refuse(125, "FIFO", "--kernel", path)

    def test_kernel_is_a_device(self):
        self.refuse(125, "character device", "--kernel", "/dev/null")

    def test_kernel_is_a_socket(self):
        path = os.path.join(self.folder, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            result = self.run_vmmhost("run", "--backend", self.backend, "--rm", "--kernel", path)
        self.assertNotEqual(result.code, 0)
        self.assertIn(path, result.err)

    def test_backend_unknown(self):
        result = self.run_vmmhost("run", "--backend", "nosuch", "--kernel", guest("poweroff"))
        self.assertEqual(result.code, 127)
        self.assertIn("nosuch", result.err)
        self.assert_nothing_left()

    def test_numbers(self):
        kernel = guest("poweroff")
        for flag, value in (("--cpus", "0"), ("--cpus", "10000"), ("--cpus", "two"), ("--memory", "10"),
                            ("--memory", "10T"), ("--memory", "lots"), ("--timeout", "-1")):
            result = self.run_vmmhost("run", "--backend", self.backend, "--rm", "--kernel", kernel, flag, value)
            self.assertEqual(result.code, 125, f"{flag} {value}: {result.err}")
            self.assert_nothing_left()

    def test_names(self):
        for name in ("", "a/b", "..", ".hidden", "x" * 65, "x" * 10000, "new\nline", "-dash"):
            result = self.run_vmmhost("run", "--backend", self.backend, "--rm", f"--name={name}", "--kernel",
                                      guest("poweroff"))
            if name:
                self.assertEqual(result.code, 125, f"{name!r}: {result.err}")
            self.assertNotIn("\n\n", result.err)
            self.assert_nothing_left()

    def test_json_fields_are_named_by_path(self):
        for text, path in (('{"boot":{"kernel":"k","nonsense":1}}', "boot.nonsense"),
                           ('{"cpus":{"count":"2"}}', "cpus.count"),
                           ('{"name":"a","name":"b"}', "name"),
                           ('{"disks":[{"file":"d","readOnly":1}]}', "disks[0].readOnly"),
                           ('{', "vm.json")):
            result = self.run_vmmhost("run", "--backend", self.backend, "-f", self.file("vm.json", text.encode()))
            self.assertEqual(result.code, 125, result.err)
            self.assertIn(path, result.err)
            self.assert_nothing_left()

    def test_vm_unknown(self):
        for verb in ("inspect", "stop", "pause", "resume", "shutdown", "reset", "logs", "console", "wait", "rm"):
            result = self.run_vmmhost(verb, "nobody")
            self.assertEqual(result.code, 127, f"{verb}: {result.err}")
            self.assertIn("nobody", result.err)

    def test_jail_part_unknown(self):
        self.refuse(125, "nonsense", "--kernel", guest("poweroff"), "--without", "nonsense")

    def test_plugin_that_others_can_write_is_refused(self):
        folder = os.path.join(self.folder, "plugins")
        os.mkdir(folder)
        path = os.path.join(folder, "vmmhost-backend-foreign.so")
        with open(path, "wb") as file:
            file.write(b"\x7fELF")
        os.chmod(path, 0o666)
        result = self.run_vmmhost("run", "--backend", "foreign", "--kernel", guest("poweroff"),
                                  environment={"VMMHOST_PLUGIN_PATH": folder})
        self.assertIn(result.code, (125, 126), result.err)
        self.assertIn("foreign", result.err)


if __name__ == "__main__":
    unittest.main()
