"""How scripts/test ends: by what its tests gave. What it starts is played by programs that only end."""
import os
import shutil
import subprocess
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class ExitCode(unittest.TestCase):
    def setUp(self):
        self.tree = tempfile.mkdtemp(prefix="vmmhost-scripts-")
        self.addCleanup(shutil.rmtree, self.tree)
        os.makedirs(os.path.join(self.tree, "scripts"))
        for name in ("test", "steps.sh"):
            shutil.copy(os.path.join(TOP, "scripts", name), os.path.join(self.tree, "scripts"))
        for name in ("build/release/build.ninja", "build/release/tests/lab/batch"):
            self.play(name, 0)
        for name in ("guest/build", "scripts/skips", "bin/cmake", "bin/setpriv"):
            self.play(name, 0)

    def play(self, name, code):
        path = os.path.join(self.tree, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\nexit {code}\n")
        os.chmod(path, 0o755)

    def run_with(self, tests_exit):
        self.play("bin/ctest", tests_exit)
        environment = {**os.environ, "PATH": os.path.join(self.tree, "bin") + ":" + os.environ["PATH"]}
        return subprocess.run([os.path.join(self.tree, "scripts", "test"), "--no-setup"], capture_output=True, text=True,
                              env=environment, stdin=subprocess.DEVNULL)

    def test_is_0_when_all_passed_though_the_lab_has_ended(self):
        done = self.run_with(0)
        self.assertIn("test: passed in", done.stdout, done.stderr)
        self.assertEqual(done.returncode, 0)

    def test_is_1_when_a_test_failed(self):
        done = self.run_with(8)
        self.assertIn("FAILED in: release", done.stderr, done.stdout)
        self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main()
