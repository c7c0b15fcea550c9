"""What tests/lab/run promises. Each test starts a machine, so that one looks at several things."""
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
RUN = os.path.join(HERE, "run")
START_LIMIT = 300  # seconds for a machine to start, on a busy host
# Those that it catches end in one place: each is tried where a machine more does not matter.
LONG = os.environ.get("VMMHOST_TEST_LONG") == "1"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) if LONG else (signal.SIGTERM, signal.SIGKILL)


def children(pid):
    found = []
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{each}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == pid:
                    found.append(int(each))
        except OSError:
            pass
    return found


def wait_until(condition, what):
    end = time.monotonic() + START_LIMIT
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {START_LIMIT} s")
        time.sleep(0.02)
    return value


class Run(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory(prefix="lab-test-"))

    def enterContext(self, context):  # new in Python 3.11
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def run_lab(self, *arguments, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        if "input" in options:
            del options["stdin"]
        return subprocess.run([RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder,
                              timeout=START_LIMIT, **options)

    def start_lab(self, *arguments):
        process = subprocess.Popen([RUN, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, cwd=self.folder)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def assert_gone(self, pids):
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "QEMU is gone")

    def test_streams_files_and_exit_code_come_back(self):
        data = os.urandom(1 << 20)
        copied = os.path.join(self.folder, "copied")
        with open(copied, "wb") as file:
            file.write(data)
        # The words would not survive a shell that reads them again.
        script = ("import hashlib, os, sys\n"
                  "print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())\n"
                  "print(hashlib.sha256(open('copied', 'rb').read()).hexdigest())\n"
                  "print(sys.argv[1:], os.getcwd(), os.environ['ONE'], os.environ['VMMHOST_LAB'], os.getuid())\n"
                  "sys.stdout.flush()\n"
                  "print(sys.argv[2], file=sys.stderr)\n"
                  "open('/etc/written', 'w').write('in memory')\n"
                  "os.makedirs('output/deep')\n"
                  "open('output/deep/file', 'w').write('came back')\n"
                  "os.stat('/dev/kvm'), os.stat('/dev/net/tun'), os.stat('/dev/vhost-vsock'), os.stat('/dev/vhost-net')\n"
                  "sys.stdout.buffer.write(b'x' * 300000)\n"
                  "sys.stdout.flush()\n"
                  "os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '1000')\n"
                  "sys.exit(124)\n")
        words = ["a b", "it's \"$HOME\" \\ *", "", "--timeout"]
        result = self.run_lab("--env", "ONE=1 2", "--copy", copied, "--output", "output", sys.executable, "-c", script,
                              *words, input=data)
        self.assertEqual(result.returncode, 124, result.stderr)
        expected = hashlib.sha256(data).hexdigest()
        lines = result.stdout.decode().splitlines()
        self.assertEqual(lines[:2], [expected, expected])
        self.assertEqual(lines[2], f"{words} {self.folder} 1 2 1 0")
        self.assertEqual(lines[3], "x" * 300000)
        self.assertEqual(result.stderr.decode(), words[1] + "\n")
        self.assertFalse(os.path.exists("/etc/written"))
        with open(os.path.join(self.folder, "output", "deep", "file"), encoding="ascii") as file:
            self.assertEqual(file.read(), "came back")

    def test_death_by_signal_is_128_and_more(self):
        self.assertEqual(self.run_lab("sh", "-c", "kill -SEGV $$").returncode, 128 + signal.SIGSEGV)

    def test_unknown_command_is_127(self):
        result = self.run_lab("/nonexistent/command")
        self.assertEqual(result.returncode, 127, result.stderr)
        self.assertIn(b"/nonexistent/command", result.stderr)

    def test_timeout_is_124_and_says_so(self):
        result = self.run_lab("--timeout", "0.5", "sleep", "1000")
        self.assertEqual(result.returncode, 124)
        self.assertIn(b"did not end within 0.5 s", result.stderr)

    def test_wrong_usage_is_125(self):
        for arguments in ([], ["--nonsense", "true"], ["--cpus", "none", "true"], ["--copy", "/nonexistent", "true"]):
            result = self.run_lab(*arguments)
            self.assertEqual(result.returncode, 125, arguments)
            self.assertTrue(result.stderr.startswith(b"lab: "), result.stderr)

    def test_crash_of_the_machine_is_125_with_the_console(self):
        result = self.run_lab("sh", "-c", "echo before; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")
        self.assertEqual(result.returncode, 125)
        self.assertEqual(result.stdout, b"before\n")
        self.assertIn(b"Kernel panic - not syncing: sysrq triggered crash", result.stderr)
        self.assertIn(b"lab: the outer machine crashed", result.stderr)

    def test_machine_that_stands_still_is_125(self):
        # As tests/lab/run, with less patience.
        process = subprocess.Popen([sys.executable, "-B", "-c", "import machine, runpy, sys\n"
                                    "machine.SILENCE_LIMIT = 8\n"
                                    "sys.argv = ['run', 'sh', '-c', 'echo up; sleep 1000']\n"
                                    f"runpy.run_path({RUN!r}, run_name='__main__')"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=HERE)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"up\n")
        qemu = children(process.pid)
        os.kill(qemu[0], signal.SIGSTOP)
        err = process.communicate(timeout=START_LIMIT)[1]
        self.assertEqual(process.returncode, 125)
        self.assertIn(b"the outer machine hangs", err)
        self.assertIn(b"no answer from QEMU's monitor", err)
        self.assert_gone(qemu)

    def test_signals_end_it_and_leave_nothing(self):
        for number in SIGNALS:
            with self.subTest(number):
                process = self.start_lab("sh", "-c", "echo up; sleep 1000")
                self.assertEqual(process.stdout.readline(), b"up\n")
                qemu = children(process.pid)
                self.assertEqual(len(qemu), 1)
                process.send_signal(number)
                code = process.wait(START_LIMIT)
                self.assertEqual(code, -number if number == signal.SIGKILL else 128 + number)
                self.assert_gone(qemu)


if __name__ == "__main__":
    unittest.main()
