"""What batch.py makes of results: those that were made ahead are handed over once, and only for the same build. No machine
runs here: `started` counts how often one would."""
import contextlib
import io
import json
import os
import signal
import tempfile
import threading
import unittest
from unittest import mock

import batch


class Batch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="lab-batch-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.results = self.path("results")
        for name in ("stage", "guests", "kernels", "kit"):
            os.mkdir(self.path(name))
        self.write("stage/program", "first")
        self.write("batch", f"VMMHOST_STAGE={self.path('stage')}\nVMMHOST_GUESTS={self.path('guests')}\n"
                            f"VMMHOST_LAB_KERNELS={self.path('kernels')}\nVMMHOST_GUEST_KIT={self.path('kit')}\n"
                            "one\t10\ttrue\ntwo\t10\ttrue\n")
        self.started = 0
        self.dies = False
        self.meanwhile = lambda: None
        for patch in (mock.patch.object(batch, "one_machine", self.one_machine),
                      mock.patch.object(batch, "unpack_kernels", lambda: os.environ.update(VMMHOST_LAB_MISSING="")),
                      mock.patch.dict(os.environ)):
            patch.start()
            self.addCleanup(patch.stop)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)

    def one_machine(self, _, results, names, __):
        self.started += 1
        self.meanwhile()
        if self.dies:
            return [], "it died\n"
        for name in names:
            batch.keep(results, {"name": name, "code": 0, "seconds": 1.0, "output": f"machine {self.started}"})
        return list(names), f"of machine {self.started}\n"

    def said_of(self, function, only=""):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            function(self.path("batch"), self.results, only)
        return said.getvalue()

    def result(self, name="one"):
        with open(batch.result_path(self.results, name), encoding="utf-8") as file:
            return json.load(file)["output"]

    def test_run_alone_starts_a_machine_each_time(self):
        self.said_of(batch.run)
        self.said_of(batch.run)
        self.assertEqual((self.started, self.result()), (2, "machine 2"))

    def test_what_was_run_ahead_is_taken_once(self):
        self.said_of(batch.run_ahead)
        said = self.said_of(batch.run)
        self.assertEqual((self.started, self.result("two")), (1, "machine 1"))
        self.assertIn("two: passed", said)
        self.assertIn("of machine 1", said)
        self.said_of(batch.run)
        self.assertEqual((self.started, self.result()), (2, "machine 2"))

    def test_batch_may_be_named_by_another_path(self):
        self.said_of(batch.run_ahead)
        with contextlib.redirect_stdout(io.StringIO()):
            batch.run(os.path.relpath(self.path("batch")), self.results, "")
        self.assertEqual(self.started, 1)

    def test_another_build_is_run_anew(self):
        for name in ("stage/program", "guests/new.elf", "kernels/.stamp"):
            with self.subTest(name):
                self.said_of(batch.run_ahead)
                self.write(name, "second")
                before = self.started
                self.assertIn("not what would run now", self.said_of(batch.run))
                self.assertEqual(self.started, before + 1)

    def test_another_environment_or_choice_is_run_anew(self):
        self.said_of(batch.run_ahead)
        os.environ["VMMHOST_TEST_LONG"] = "0" if os.environ.get("VMMHOST_TEST_LONG") == "1" else "1"
        self.said_of(batch.run)
        self.assertEqual(self.started, 2)
        self.said_of(batch.run_ahead, "one")
        self.assertEqual(os.listdir(self.results).count("two.json"), 0)
        self.said_of(batch.run)
        self.assertEqual((self.started, self.result("two")), (4, "machine 4"))

    def test_build_during_the_run_counts_for_nothing(self):
        self.meanwhile = lambda: self.write("stage/program", "second")
        with self.assertRaisesRegex(SystemExit, "built meanwhile"):
            self.said_of(batch.run_ahead)
        self.said_of(batch.run)
        self.assertEqual(self.started, 2)

    def test_lab_that_failed_ahead_is_tried_again(self):
        self.dies = True
        with self.assertRaisesRegex(SystemExit, "no machine came"):
            self.said_of(batch.run_ahead)
        self.dies, self.started = False, 0
        self.said_of(batch.run)
        self.assertEqual((self.started, self.result()), (1, "machine 1"))

    def test_run_waits_for_what_is_under_way_and_takes_it(self):
        under_way, go_on = threading.Event(), threading.Event()
        self.meanwhile = lambda: (under_way.set(), go_on.wait(30))
        threads = [threading.Thread(target=function, args=(self.path("batch"), self.results, ""))
                   for function in (batch.run_ahead, batch.run)]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            threads[0].start()
            self.assertTrue(under_way.wait(30))
            threads[1].start()
            while "waiting for their results" not in said.getvalue():
                threads[1].join(0.01)
                self.assertTrue(threads[1].is_alive(), "it waits")
            go_on.set()
            for thread in threads:
                thread.join(30)
        self.assertIn("run ahead", said.getvalue())
        self.assertEqual((self.started, self.result()), (1, "machine 1"))

    def inside(self, command):
        """What `batch.py inside` tells of a test that is this command of a shell, as one_machine() reads it."""
        self.write("batch", f"one\t10\tsh\t-c\t{command}\n")
        said = io.StringIO()
        os.environ["VMMHOST_LAB"] = "1"
        with mock.patch.object(batch, "OUTPUT", self.path("output")), contextlib.redirect_stdout(said):
            batch.inside(self.path("batch"), ["one"])
        return json.loads(said.getvalue().splitlines()[-1])

    def test_files_that_a_test_leaves_come_back_with_its_result_and_go_with_the_next_run(self):
        os.mkdir(self.results)
        with contextlib.redirect_stdout(io.StringIO()):
            batch.keep(self.results, self.inside(f"printf 'a\\377' >{self.path('output')}/file; exit 3"))
        with open(batch.result_path(self.results, "one"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["code"], 3)
        with open(os.path.join(self.results, "one", "file"), "rb") as file:
            self.assertEqual(file.read(), b"a\xff")
        self.said_of(lambda *arguments: batch.run_machines(*arguments[:2], []))
        self.assertEqual(os.listdir(self.results), [])

    def test_what_cannot_come_back_fails_the_test_by_name(self):
        for command in (f"mkdir {self.path('output')}/folder", f"truncate -s 9M {self.path('output')}/folder"):
            record = self.inside(command)
            self.assertEqual(record["code"], 1)
            self.assertIn("folder", record["output"])
        self.assertEqual(self.inside("true")["code"], 0)

    def test_machine_in_which_another_vmm_stands_still_is_ended(self):
        unfit = self.path("unfit")
        with mock.patch.object(batch, "UNFIT", unfit):
            for code, ends in ((0, False), (1, True)):
                with self.subTest(code):
                    try:
                        record = self.inside(f"touch {unfit}; echo why; exit {code}")
                        self.assertFalse(ends, record)
                    except SystemExit as error:
                        self.assertTrue(ends)
                        self.assertIn("why", str(error.code))

    def test_whoever_is_killed_is_waited_for_no_longer(self):
        ready = os.pipe()
        child = os.fork()
        if child == 0:
            self.meanwhile = lambda: (os.write(ready[1], b"x"), signal.pause())
            batch.run_ahead(self.path("batch"), self.results, "")
            os._exit(1)
        os.read(ready[0], 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.said_of(batch.run)
        self.assertEqual((self.started, self.result()), (1, "machine 1"))


if __name__ == "__main__":
    unittest.main()
