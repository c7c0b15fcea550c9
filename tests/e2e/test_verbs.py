"""The same verbs, exit codes and JSON on every backend that this machine has, with bare-metal guests."""
import os
import shutil
import signal
import time
import unittest

from harness import VmmhostTest, backends, flood_lines, guest, is_gone, wait_until


class Verbs:
    backend = ""

    def run_guest(self, name, *arguments, **options):
        return self.run_vmmhost("run", "--backend", self.backend, "--rm", "--memory", "64M", "--kernel", guest(name),
                                *arguments, **options)

    def test_poweroff_exits_0(self):
        self.assertEqual(self.run_guest("poweroff").code, 0)

    def test_output_arrives_whole(self):
        result = self.run_guest("hello")
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, "hello from the guest\ngood bye\n")

    def test_much_output_arrives_in_order_and_whole(self):
        # Slow guests and slow readers are met elsewhere; here the reader is as fast as it can be.
        result = self.run_guest("flood", timeout=120)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, flood_lines())

    def test_reset_exits_3(self):
        self.assertEqual(self.run_guest("reset").code, 3)

    def test_command_line_reaches_the_guest(self):
        result = self.run_guest("cmdline", "--cmdline", "one two=3")
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, "cmdline: one two=3\n")

    def test_initrd_reaches_the_guest(self):
        path = os.path.join(self.folder, "initrd")
        with open(path, "wb") as file:
            file.write(b"initrd content")
        result = self.run_guest("modules", "--initrd", path)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, f"modules 1, first has 14 bytes, sum {sum(b'initrd content')}\n")

    def test_console_goes_both_ways(self):
        process = self.start("run", "--backend", self.backend, "--rm", "--memory", "64M", "--kernel",
                             guest("serial_echo"))
        process.stdin.write(b"abc\x04")
        process.stdin.flush()
        result = self.finish(process)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.out, "echo ready\nabcecho done\n")

    def test_json_tells_the_cause(self):
        result = self.run_guest("poweroff", "--json")
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(result.json["outcome"]["kind"], "guest")
        self.assertEqual(result.json["outcome"]["cause"], "powerOff")
        self.assertEqual(result.json["exitCode"], 0)

    def test_timeout_exits_124(self):
        self.assertEqual(self.run_guest("loop", "--timeout", "1").code, 124)

    def test_signals_exit_128_and_number(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = self.start("run", "--backend", self.backend, "--name", "signalled", "--rm", "--memory", "64M",
                                 "--kernel", guest("loop"))
            self.wait_running("signalled")
            process.send_signal(number)
            self.assertEqual(self.finish(process).code, code)

    def wait_running(self, name):
        def running():
            result = self.run_vmmhost("inspect", name, "--json")
            return result.code == 0 and result.json["state"] == "running"
        wait_until(running, 30, f"{name} runs")

    def test_life_of_a_detached_vm(self):
        info = self.detached("one", self.backend)
        self.assertEqual(info["state"], "running")
        self.assertEqual(info["name"], "one")
        self.assertTrue(info["detached"])
        self.assertGreater(info["workerPid"], 0)
        self.assertTrue(info["jail"], "what was verified is told")
        policies = [line for line in info["jail"] if line.startswith("seccomp policy: worker-")]
        self.assertEqual(len(policies), 1, info["jail"])
        self.assertNotIn("OLD", policies[0], "a backend of this tree")
        self.assertEqual([row["name"] for row in self.check("ps", "--json").json], ["one"])
        self.check("pause", "one")
        self.assertEqual(self.state("one"), "paused")
        self.check("pause", "one")
        self.check("resume", "one")
        self.assertEqual(self.state("one"), "running")
        waiting = self.start("wait", "one")
        self.check("stop", "one")
        self.assertEqual(self.finish(waiting).code, 143)
        self.assertEqual(self.check("ps", "--json").json, [])
        self.assertEqual([(row["name"], row["state"]) for row in self.check("ps", "-a", "--json").json],
                         [("one", "ended")])
        self.assertEqual(self.run_vmmhost("wait", "one").code, 143)
        self.check("rm", "one")
        self.assertEqual(self.run_vmmhost("inspect", "one").code, 127)

    def test_logs_keep_the_console(self):
        self.check("run", "--backend", self.backend, "--name", "said", "--memory", "64M", "--kernel", guest("hello"))
        self.assertEqual(self.check("logs", "said").out, "hello from the guest\ngood bye\n")
        self.assertIn("ended", self.check("logs", "--vmm", "said").out)
        self.check("rm", "said")

    def test_console_attaches_again_after_detaching(self):
        self.detached("echo", self.backend, kernel="serial_echo")
        for word in (b"xyz", b"uvw"):
            process = self.start("console", "echo")
            process.stdin.write(word)
            process.stdin.flush()
            self.read_until(process, word.decode())
            process.terminate()  # without a terminal there is no menu to detach with
            self.finish(process)
            self.assertEqual(self.state("echo"), "running")
        process = self.start("console", "echo")
        self.read_until(process, "echo ready\nxyzuvw")
        process.stdin.write(b"\x04")
        process.stdin.flush()
        result = self.finish(process)
        self.assertEqual((result.code, result.out), (0, "echo done\n"), result.err)
        self.assertEqual(self.run_vmmhost("wait", "echo").code, 0)
        self.check("rm", "echo")

    def test_reset_starts_the_guest_again(self):
        self.detached("again", self.backend, kernel="serial_echo")
        said = lambda text: self.check("logs", "again").out == text
        wait_until(lambda: said("echo ready\n"), 30, "the first greeting")
        self.check("reset", "again")
        wait_until(lambda: said("echo ready\necho ready\n"), 30, "a second greeting")
        self.check("stop", "again")
        self.check("rm", "again")

    def test_name_taken_is_refused(self):
        self.detached("taken", self.backend)
        result = self.run_vmmhost("run", "--backend", self.backend, "--name", "taken", "--kernel", guest("loop"))
        self.assertEqual(result.code, 125)
        self.assertIn("taken", result.err)
        self.check("stop", "taken")
        result = self.run_vmmhost("run", "--backend", self.backend, "--name", "taken", "--kernel", guest("loop"))
        self.assertEqual(result.code, 125)
        self.assertIn("rm taken", result.err)
        self.check("rm", "taken")

    def test_config_file_and_flags_give_the_same(self):
        path = os.path.join(self.folder, "vm.json")
        flags = ("--kernel", guest("poweroff"), "--memory", "64M", "--cmdline", "x")
        with open(path, "w") as file:
            file.write(self.check("inspect", "--config", *flags).out)
        config = self.check("inspect", "--config", "-f", path).json
        self.assertEqual(config, {"boot": {"kernel": guest("poweroff"), "cmdline": "x"}, "cpus": {},
                                  "memory": {"size": 64 << 20}})
        self.assertEqual(config, self.check("inspect", "--config", *flags).json)
        self.check("run", "--backend", self.backend, "--rm", "-f", path)

    def test_many_at_once_and_stop(self):
        for index in range(5):
            self.detached(f"n{index}", self.backend)
        self.assertEqual(self.check("ps").out.count("running"), 5)
        for index in range(5):
            self.check("rm", "-f", f"n{index}")

    def test_kernel_that_nobody_else_may_read(self):
        """Root's workers run under another user; a backend that opens it by path is given a copy."""
        path = os.path.join(self.folder, "private.elf")
        shutil.copy(guest("poweroff"), path)
        os.chmod(path, 0o600)
        result = self.check("run", "--backend", self.backend, "--name", "vm", "--memory", "64M", "--kernel", path,
                            "--json")
        self.assertEqual(result.json["outcome"]["cause"], "powerOff")
        log = self.check("logs", "--vmm", "vm").out
        self.assertNotIn("epoll", log)
        self.check("rm", "vm")

    def test_triple_fault_is_told_apart_or_is_a_reset(self):
        result = self.run_guest("triple_fault", "--json")
        if self.backend == "kvm":
            self.assertEqual((result.code, result.json["outcome"]["cause"]), (1, "tripleFault"))
        else:
            self.assertEqual((result.code, result.json["outcome"]["cause"]), (3, "reset"))


class KvmVerbs(Verbs, VmmhostTest):
    backend = "kvm"

    def setUp(self):
        if self.backend not in backends():
            self.skipTest("no /dev/kvm that this user may open")
        super().setUp()

    def test_internal_error_is_a_crash(self):
        result = self.run_guest("internal_error", "--json")
        self.assertEqual((result.code, result.json["outcome"]["cause"]), (1, "crash"), result.out)

    def test_shutdown_of_a_guest_that_does_not_listen_changes_nothing(self):
        self.detached("deaf", self.backend)
        self.check("shutdown", "deaf")
        self.assertEqual(self.state("deaf"), "running")
        self.check("rm", "-f", "deaf")

    def test_pause_and_stop_while_a_reset_reads_much(self):
        """How much is up to the files: nobody waits for it."""
        path = os.path.join(self.folder, "initrd")
        with open(path, "wb") as file:
            file.truncate(512 << 20)
        self.check("run", "--backend", self.backend, "--name", "large", "--detach", "--memory", "1G", "--kernel",
                   guest("loop"), "--initrd", path)
        resets = [self.start("reset", "large") for _ in range(3)]
        began = time.monotonic()
        self.check("pause", "large")
        outcome = self.check("stop", "large", "--json").json["outcome"]
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(outcome["kind"], "stopped", outcome)
        for reset in resets:
            self.finish(reset)  # was done, or there was nothing left to reset
        self.check("rm", "large")

    def test_disk_is_locked_while_it_is_used(self):
        path = os.path.join(self.folder, "disk")
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        self.detached("first", self.backend, "--disk", path)
        result = self.run_guest("poweroff", "--disk", path)
        self.assertEqual(result.code, 125)
        self.assertIn("disks[0]: " + path + " is in use by another VM", result.err)
        self.check("rm", "-f", "first")
        self.assertEqual(self.run_guest("poweroff", "--disk", path).code, 0)

    def test_device_that_is_not_served_is_named(self):
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            file.write('{"shares":[{"tag":"t","directory":"/"}]}')
        result = self.run_guest("poweroff", "-f", path)
        self.assertEqual(result.code, 125)
        self.assertIn("shares", result.err)


class QemuVerbs(Verbs, VmmhostTest):
    backend = "qemu"


if __name__ == "__main__":
    unittest.main()
