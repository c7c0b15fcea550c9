"""Too little of everything: each limit of a process is swept from too little upward until a VM runs. At every step there
is an error that says what was missing and an exit code that says whose fault it is, and nothing is left."""
import json
import os
import resource
import subprocess
import unittest

from fault_harness import FaultTest, OrdinaryUserTest, guest, harness

MIB = 1 << 20


class Sweep(FaultTest):
    def run_limited(self, limits):
        """`vmmhost run` of a guest with {RLIMIT: value}: the command and its supervisor have it."""
        def lower():
            for limit, value in limits.items():
                resource.setrlimit(limit, (value, value))

        return self.run_vmmhost("run", "--backend", "fake", "--rm", "--memory", "8M", "--kernel", guest("hello"),
                                preexec_fn=lower, timeout=30)

    def assert_clear(self, result, what):
        """Runs, or ends with an error in words; or the dynamic loader could not even start the command."""
        told = f"{what}: exit code {result.code}\n{result.out}\n{result.err}"
        loader = ("error while loading shared libraries", "cannot allocate TLS data structures")
        if result.code == 127 and any(words in result.err for words in loader):
            return False
        self.assertIn(result.code, (0, 125, 126), told)
        if result.code == 0:
            self.assertIn("hello from the guest", result.out, told)
            return True
        lines = [line for line in result.err.splitlines() if line.startswith("vmmhost:")]
        self.assertEqual(len(lines), 1, told)
        self.assertGreater(len(lines[0]), len("vmmhost: ") + 10, told)
        return False

    def sweep(self, limit, values, must_run):
        ran = []
        for value in values:
            with self.subTest(value):
                result = self.run_limited({limit: value})
                if self.assert_clear(result, f"limit {value}"):
                    ran.append(value)
                self.assertEqual(self.check("ps", "-a").out.count("\n"), 2, "only the neighbour is left")
        self.assertTrue(ran, "runs at last")
        self.assertEqual(ran, values[values.index(ran[0]):], "what is enough stays enough")
        self.assertLessEqual(ran[0], must_run)
        self.assert_neighbour_well()
        print(f"runs from {ran[0]} on", flush=True)

    def test_descriptors(self):
        # 4: three standard streams and the one that the dynamic loader needs.
        self.sweep(resource.RLIMIT_NOFILE, [*range(4, 36), 40, 64, 128, 256, 300, 305, 306, 400], must_run=306)

    def test_address_space(self):
        self.sweep(resource.RLIMIT_AS, [value * MIB for value in (*range(7, 32, 2), 48, 64, 128, 256)],
                   must_run=256 * MIB)

    def test_data(self):
        self.sweep(resource.RLIMIT_DATA, [value * 64 * 1024 for value in (*range(3, 24), 32, 64, 256, 1600)],
                   must_run=100 * MIB)

    def test_file_size(self):
        self.sweep(resource.RLIMIT_FSIZE, [0, 1, 8, 64, 512, 700, 1024, 2048, 4096, 65536, MIB], must_run=4096)

    def test_stack(self):
        self.sweep(resource.RLIMIT_STACK, [value * 1024 for value in (128, 256, 512, 1024, 8192)], must_run=8 * MIB)


class OfTheCaller(FaultTest):
    """Limits as a shell, a batch system or a unit sets them: a VM starts, or the limit is named and what is needed."""

    def run_limited(self, limit, soft, hard=None):
        def lower():
            own = resource.getrlimit(limit)
            resource.setrlimit(limit, (soft, own[1] if hard is None else hard))
        return self.run_vmmhost("run", "--backend", "fake", "--rm", "--memory", "8M", "--kernel", guest("hello"),
                                preexec_fn=lower, timeout=30)

    def test_no_core_files(self):
        result = self.run_limited(resource.RLIMIT_CORE, 0, 0)
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("hello from the guest", result.out)

    def test_soft_limits_are_no_hindrance(self):
        for limit, soft in ((resource.RLIMIT_DATA, 1000 << 10), (resource.RLIMIT_NOFILE, 100),
                            (resource.RLIMIT_AS, 40 * MIB), (resource.RLIMIT_STACK, 1 << 20)):
            with self.subTest(limit):
                result = self.run_limited(limit, soft)
                self.assertEqual(result.code, 0, result.err)

    def test_too_low_is_named_with_what_is_needed_and_what_mends_it(self):
        for limit, value, name, has, mend in (
                (resource.RLIMIT_DATA, 1000 << 10, "RLIMIT_DATA", "is 1000 KiB; the worker of this VM takes 72 MiB",
                 "ulimit -d unlimited"),
                (resource.RLIMIT_AS, 20 * MIB, "RLIMIT_AS", "is 20 MiB; vmmhost itself takes 24 MiB",
                 "ulimit -v unlimited"),
                (resource.RLIMIT_DATA, 20 * MIB, "RLIMIT_DATA", "is 20 MiB; the worker of this VM takes 72 MiB",
                 "ulimit -d unlimited"),
                (resource.RLIMIT_AS, 70 * MIB, "RLIMIT_AS", "is 70 MiB; the worker of this VM takes 72 MiB",
                 "ulimit -v unlimited"),
                (resource.RLIMIT_NOFILE, 100, "RLIMIT_NOFILE", "is 100; starting a worker takes 306",
                 "ulimit -n 1024")):
            with self.subTest(f"{name} {value}"):
                result = self.run_limited(limit, value, value)
                self.assertEqual(result.code, 125, result.err)
                self.assertIn(name, result.err)
                self.assertIn(has, result.err)
                self.assertIn("hint: " + mend, result.err)

    def run_with_shared_memory(self, soft, hard):
        path = os.path.join(self.folder, "shared.json")
        with open(path, "w") as file:
            json.dump({"boot": {"kernel": guest("hello")}, "memory": {"size": "8M", "shared": True}}, file)
        os.chmod(path, 0o644)
        return self.run_vmmhost("run", "--backend", "fake", "--rm", "-f", path, timeout=30,
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))

    def test_files_of_memory_are_files(self):
        result = self.run_with_shared_memory(MIB, MIB)
        self.assertEqual(result.code, 125, result.err)
        self.assertIn("(RLIMIT_FSIZE) is 1024 KiB; the shared memory of this VM takes 8192 KiB", result.err)
        self.assertIn("hint: ulimit -f unlimited", result.err)
        result = self.run_with_shared_memory(MIB, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("hello from the guest", result.out)


@unittest.skipIf(os.geteuid() != 0, "the tests above are an ordinary user's")
class OfAnOrdinaryCaller(OfTheCaller, OrdinaryUserTest):
    with_neighbour = False

    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = os.path.join(self.reach, "lib", "fake-plugins")


@unittest.skipUnless("kvm" in harness.backends(), "no other worker takes more descriptors for more devices")
class OfAWideMachine(FaultTest):
    with_neighbour = False

    def test_too_few_descriptors_are_named_with_what_is_needed(self):
        disks = []
        for number in range(8):
            disks += ["--disk", os.path.join(self.folder, f"disk{number}")]
            with open(disks[-1], "wb") as file:
                file.truncate(MIB)
        result = self.run_vmmhost(
            "run", "--backend", "kvm", "--rm", "--cpus", "8", "--memory", "64M", "--kernel", guest("hello"), *disks,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400)), timeout=30)
        self.assertEqual(result.code, 125, result.err)
        self.assertIn("(RLIMIT_NOFILE) is 400; the worker of this VM takes 513", result.err)
        self.assertIn("hint: ulimit -n 1024", result.err)


class LimitsOfALivingSupervisor(FaultTest):
    def test_supervisor_without_descriptors_takes_no_client_and_then_does(self):
        info = self.fake_detached("vm")
        pid = info["supervisorPid"]
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))  # of a new one, the number would be higher
        for verb in ("inspect", "pause"):
            result = self.run_vmmhost(verb, "vm", timeout=20)
            self.assertEqual(result.code, 125, result.err)
            self.assertIn("took longer than", result.err)
        self.assertIn("not answering", self.check("ps").out)
        self.assert_neighbour_well()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        self.assertEqual(self.state("vm"), "running")
        self.check("pause", "vm")
        self.check("rm", "-f", "vm")

    def test_supervisor_without_memory_goes_on_or_ends_and_tells(self):
        info = self.fake_detached("vm")
        pid = info["supervisorPid"]
        resource.prlimit(pid, resource.RLIMIT_DATA, (1, resource.prlimit(pid, resource.RLIMIT_DATA)[1]))
        for verb in ("inspect", "pause", "resume", "reset", "logs", "stop"):
            result = self.run_vmmhost(verb, "vm", timeout=30)
            self.assertIn(result.code, (0, 125), f"{verb}: {result.err}")
            if result.code == 125:
                self.assertRegex(result.err, r"(?m)^vmmhost: \S.{10}", verb)
        self.assert_neighbour_well()
        self.check("rm", "-f", "vm")

    def test_supervisor_that_may_not_write_goes_on(self):
        info = self.fake_detached("vm", kernel="serial_echo")
        resource.prlimit(info["supervisorPid"], resource.RLIMIT_FSIZE, (1, 1))
        for verb in ("pause", "resume", "reset", "stop"):
            self.check(verb, "vm")
        row = next(row for row in self.check("ps", "-a", "--json").json if row["name"] == "vm")
        self.assertEqual(row["state"], "ended")
        self.check("rm", "vm")


@unittest.skipIf(os.geteuid() != 0, "only root can be a user without any process")
class Processes(FaultTest, OrdinaryUserTest):
    """RLIMIT_NPROC counts what a user has, and not for root: here it is a user's who has nothing else."""
    USER = 61234
    with_neighbour = False

    def setUp(self):
        super().setUp()
        for folder, names, files in os.walk(self.folder):
            for name in [".", *names, *files]:
                os.chown(os.path.join(folder, name), self.USER, self.USER, follow_symlinks=False)
        self.environment["VMMHOST_PLUGIN_PATH"] = os.path.join(self.reach, "lib", "fake-plugins")

    def run_as_user(self, processes):
        def become():
            os.setgroups([])
            os.setgid(self.USER)
            os.setuid(self.USER)
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))

        return subprocess.run([harness.VMMHOST, "run", "--backend", "fake", "--rm", "--memory", "8M", "--kernel",
                               guest("hello")], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              cwd=self.folder, timeout=30, env=self.environment, preexec_fn=become)

    def test_processes(self):
        ran = []
        for processes in range(1, 8):
            with self.subTest(processes):
                result = self.run_as_user(processes)
                told = f"{processes}: {result.returncode} {result.stdout} {result.stderr}"
                self.assertIn(result.returncode, (0, 125, 126), told)
                if result.returncode == 0:
                    self.assertIn("hello from the guest", result.stdout, told)
                    ran.append(processes)
                else:
                    self.assertIn("vmmhost: ", result.stderr, told)
                self.assert_nothing_left()
        self.assertEqual(ran, [4, 5, 6, 7], "command, supervisor, and what looks at a plugin: a thread and a program")


if __name__ == "__main__":
    unittest.main()
