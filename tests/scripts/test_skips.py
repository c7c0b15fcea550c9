"""scripts/skips, on what ctest leaves of tests that are skipped in each way there is."""
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

SKIPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "skips")

# As GoogleTest 1.12 prints it.
GTEST = """\
    Running main() from ./googletest/src/gtest_main.cc
    [==========] Running 4 tests from 1 test suite.
    [ RUN      ] Suite.passes
    [       OK ] Suite.passes (0 ms)
    [ RUN      ] Suite.hasNoDevice
    what the program says of itself
    /somewhere/a_test.cc:12: Skipped
    there is no device <&> here,
    nor another one

    [  SKIPPED ] Suite.hasNoDevice (3 ms)
    [ RUN      ] Suite.says_nothing
    /somewhere/a_test.cc:15: Skipped


    [  SKIPPED ] Suite.says_nothing (0 ms)
    [ RUN      ] Values/Suite.holds/a
    [       OK ] Values/Suite.holds/a (0 ms)
    [==========] 4 tests from 1 test suite ran. (4 ms total)
    [  PASSED  ] 2 tests.
    [  SKIPPED ] 2 tests, listed below:
    [  SKIPPED ] Suite.hasNoDevice
    [  SKIPPED ] Suite.says_nothing
"""
UNITTEST = """\
    import unittest


    class Case(unittest.TestCase):
        def test_passes(self):
            print("skipped nothing at all")

        @unittest.skip("takes root")
        def test_decorated(self):
            pass

        def test_says_it_itself(self):
            \"\"\"A line of its own (that holds brackets).\"\"\"
            print("some words before", flush=True)
            self.skipTest("it's \\"not\\" here,\\nnor there")


    class Whole(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            raise unittest.SkipTest("no class")

        def test_anything(self):
            pass
"""
LONG = 4000  # bytes of output; ctest keeps 1024 in a JUnit file unless it is told otherwise


class Skips(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="vmmhost-skips-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.write("gtest.txt", textwrap.dedent(GTEST))
        self.write("cases.py", textwrap.dedent(UNITTEST))
        python = sys.executable
        self.tests = [
            ("program", ["cat", "gtest.txt"], ""),
            ("program.Suite.hasNoDevice", ["sed", "-n", "5,11p", "gtest.txt"],
             "SKIP_REGULAR_EXPRESSION [==[\\[  SKIPPED \\]]==]"),
            ("py.cases", [python, "-B", "-m", "unittest", "-v", "cases"], ""),
            ("code", ["sh", "-c", "echo 'there is no KVM'; exit 77"], "SKIP_RETURN_CODE 77"),
            ("passes", ["echo", "fine"], ""),
        ]

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)
        return name

    def ctest(self, *options):
        lines = []
        for name, command, properties in self.tests:
            words = " ".join(f"[==[{word}]==]" for word in command)
            lines.append(f"add_test({name} {words})\nset_tests_properties({name} PROPERTIES {properties} "
                         f"WORKING_DIRECTORY \"{self.folder}\")\n")
        self.write("CTestTestfile.cmake", "".join(lines))
        done = subprocess.run(["ctest", "-j4", "--output-junit", "junit.xml", *options], cwd=self.folder,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)

    def skips(self, *arguments, code=0):
        done = subprocess.run([SKIPS, *arguments], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    INSIDE = [
        "  skipped py.cases:cases.Case.test_says_it_itself: it's \"not\" here, nor there",
        "  skipped py.cases:cases.Whole.setUpClass: no class",
        "  skipped program.Suite.says_nothing: no reason given",
        "  skipped py.cases:cases.Case.test_decorated: takes root",
        "  skipped program.Suite.hasNoDevice: there is no device <&> here, nor another one",
    ]
    ALL = sorted([*INSIDE, "  skipped code: there is no KVM"])

    def test_each_way_is_listed_once_with_its_reason(self):
        self.ctest("--test-output-size-passed", "100000000")
        lines = self.skips("junit.xml").stdout.splitlines()
        self.assertEqual(sorted(lines[:-1]), self.ALL)
        self.assertEqual(lines[-1], "skips: 6 tests skipped")
        # The same again is the same.
        self.assertEqual(self.skips("junit.xml", "junit.xml").stdout.splitlines(), lines)

    def test_log_tells_what_is_inside_of_tests(self):
        self.ctest()
        lines = self.skips("Testing/Temporary/LastTest.log").stdout.splitlines()
        self.assertEqual(sorted(lines[:-1]), sorted(self.INSIDE))

    def test_output_that_was_cut_is_no_answer(self):
        self.tests.append(("long", ["sh", "-c", f"head -c {LONG} /dev/zero | tr '\\0' x; cat gtest.txt"], ""))
        self.ctest()
        self.assertIn("--test-output-size-passed", self.skips("junit.xml", code=125).stderr)
        self.ctest("--test-output-size-passed", "100000000")
        self.assertIn("skipped long.Suite.hasNoDevice: there is", self.skips("junit.xml").stdout)

    def test_what_is_allowed(self):
        self.ctest("--test-output-size-passed", "100000000")
        everything = "# what may be\nprogram.*  a device\n\ncode  KVM # more\npy.cases:cases.*  all of them\n"
        self.write("allowed", everything)
        self.assertEqual(self.skips("--allowed", "allowed", "junit.xml").stderr, "")
        self.write("allowed", everything.replace("code  ", "other  "))
        result = self.skips("--allowed", "allowed", "junit.xml", code=1)
        self.assertEqual(result.stderr, "skips: code was skipped, and allowed does not name it\n")
        self.assertEqual(sorted(result.stdout.splitlines()[:-1]), self.ALL)
        self.write("allowed", "program.*\n")
        self.assertIn("allowed:1: program.* has no reason", self.skips("--allowed", "allowed", "junit.xml", code=125).stderr)

    def test_nothing_skipped(self):
        self.tests = self.tests[-1:]
        self.ctest()
        self.write("allowed", "")
        self.assertEqual(self.skips("--allowed", "allowed", "junit.xml").stdout, "skips: no tests skipped\n")

    def test_wrong_files_and_usage(self):
        self.write("text", "no log\n")
        self.write("broken.xml", "<testsuite><testcase")
        for arguments, named in ((("none.xml",), "none.xml: No such file"), (("text",), "text: neither"),
                                 (("broken.xml",), "broken.xml: "), ((), "required"),
                                 (("--allowed", "none", "text"), "neither"), (("--other", "text"), "--other")):
            self.assertIn(named, self.skips(*arguments, code=125).stderr)


if __name__ == "__main__":
    unittest.main()
