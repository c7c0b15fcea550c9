"""The page maker's own logic."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import page


def results(backend, capabilities, **cases):
    return {"backend": {"name": backend, "capabilities": capabilities},
            "cases": [{"name": name.replace("__", "."), "result": word.split(":")[0],
                       "observed": word.partition(":")[2]} for name, word in cases.items()]}


class Page(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.page = os.path.join(self.folder.name, "page.md")

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, content):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as file:
            json.dump(content, file)
        return path

    def call(self, *arguments):
        return subprocess.run([sys.executable, "-B", page.__file__, *arguments], capture_output=True, text=True)

    def test_page_tells_what_the_results_tell(self):
        one = self.write("one.json", results("one", ["pause"], pause__stops="passed", fields__nics="passed:refused",
                                             reset__again="notAdvertised", linux__boots="needsAbsent"))
        self.assertEqual(self.call(self.page, one).returncode, 0)
        with open(self.page) as file:
            text = file.read()
        for line in ("| `pause`: pause and resume | yes |", "| `reset`: the guest starts again | no |",
                     "| `nics` | refused |", "| `pause.stops` | yes |", "| `reset.again` | refused |", "| `linux.boots` | not run |"):
            self.assertIn(line, text.splitlines())
        self.assertEqual(self.call("--check", self.page, one).returncode, 0)

    def test_what_is_written_is_read_again(self):
        said = {"one": {"capability pause": "yes", "fields.consoles[0].kind": "served", "pause.stops": "yes"}}
        read = page.read_page(page.make_page(said))["one"]
        for key, word in said["one"].items():
            self.assertEqual(read[key], word)

    def test_other_results_fail_the_check_and_are_shown(self):
        self.call(self.page, self.write("one.json", results("one", ["pause"], pause__stops="passed")))
        worse = self.write("one.json", results("one", ["pause"], pause__stops="failed"))
        done = self.call("--check", self.page, worse)
        self.assertEqual(done.returncode, 1)
        self.assertIn("+| `pause.stops` | FAILED |", done.stdout)

    def test_backend_without_results_is_told_and_kept(self):
        one = self.write("one.json", results("one", [], pause__stops="passed"))
        two = self.write("two.json", results("two", ["pause"], pause__stops="notAdvertised"))
        self.call(self.page, one, two)
        os.remove(two)
        done = self.call("--check", self.page, one, two)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("no results of two", done.stdout)

    def test_no_results_at_all_fail(self):
        self.assertEqual(self.call("--check", self.page, "/no/such/results").returncode, 1)


if __name__ == "__main__":
    unittest.main()
