"""A CMake project of then builds against today's installed prefix, and what it built works."""
import os
import re
import shutil
import subprocess
import unittest

from compat_harness import PLUGINS, STAGE, THEN, CompatTest, guest

BUILD = os.path.join(os.environ["COMPAT_PROGRAMS"], "consumer")


class Consumer(CompatTest):
    @classmethod
    def setUpClass(cls):
        """Built anew each time: what an earlier configuration remembers would hide what is gone."""
        shutil.rmtree(BUILD, ignore_errors=True)
        cls.make("-S", os.path.join(THEN, "consumer"), "-B", BUILD, "-G", "Ninja", "-DCMAKE_PREFIX_PATH=" + STAGE,
                 "-DCMAKE_BUILD_TYPE=Release", "-Dconsumer_OLD_SCHEMAS=" + os.path.join(THEN, "schemas"))
        cls.make("--build", BUILD)

    @staticmethod
    def make(*arguments):
        done = subprocess.run(["cmake", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise AssertionError(done.stdout)

    def program(self, name, *arguments):
        done = subprocess.run([os.path.join(BUILD, name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=60, env=self.environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_backend(self):
        self.environment["VMMHOST_PLUGIN_PATH"] = BUILD
        result = self.check("run", "--backend", "consumer", "--rm", "--memory", "64M", "--kernel", guest("hello"), "--json")
        self.assertEqual(result.err, "hello\n")
        outcome = result.json["outcome"]
        self.assertEqual((outcome["cause"], outcome["detail"]), ("powerOff", "said hello"))

    def test_parts_of_the_sdk(self):
        self.assertEqual(self.program("consumer-parts"), "good\n")

    def test_schemas_of_its_own(self):
        self.assertRegex(self.program("schemas/consumer-schemas"), r"^control 1\.\d+, worker 1\.\d+\n$")

    def test_program_that_embeds_the_host(self):
        said = self.program("consumer-host", PLUGINS, os.path.join(STAGE, "bin", "vmmhost"), guest("loop"), "fake")
        self.assertRegex(said, re.compile(r"^fake: usable, plays the guests of the tests, without running them, , "
                                          r"\d+ capabilities, 0 instructions a second, somewhere$", re.MULTILINE))
        states = [int(state) for state in re.findall(r"^state (\d+)$", said, re.MULTILINE)]
        self.assertEqual([states[0], states[-1]], [1, 5], said)
        self.assertIn(3, states, "paused")
        self.assertIn("described: yes\n", said)
        self.assertRegex(said, r"ended: guest powerOff the guest powered off 0\n$")


if __name__ == "__main__":
    unittest.main()
