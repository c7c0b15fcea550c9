"""The page maker's own logic."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import page

TEXTS = {"pause": "pause and resume", "reset": "the guest starts again"}


def results(backend, place, capabilities, **cases):
    return {"backend": {"name": backend, "place": place, "capabilities": capabilities},
            "abilities": [{"name": name, "text": text} for name, text in TEXTS.items()],
            "cases": [{"name": name.replace("__", "."), "result": word.split(":")[0],
                       "observed": word.partition(":")[2]} for name, word in cases.items()]}


class Page(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.page = os.path.join(self.folder.name, "page.md")

    def write(self, name, content):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as file:
            json.dump(content, file)
        return path

    def call(self, *arguments, code=0):
        done = subprocess.run([sys.executable, "-B", page.__file__, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def lines(self):
        with open(self.page) as file:
            return file.read().splitlines()

    def test_page_tells_what_the_results_tell(self):
        one = self.write("one.json", results("one", "", ["pause", "own"], pause__stops="passed",
                                             fields__nics="passed:refused", reset__again="notAdvertised",
                                             linux__boots="needsAbsent", console__served="passed:served",
                                             console__none="passed:refused", console__other="passed:4 of them"))
        self.call(self.page, one)
        for line in ("| `pause`: pause and resume | yes |", "| `reset`: the guest starts again | no |", "| `own` | yes |",
                     "| `nics` | refused |", "| `pause.stops` | yes |", "| `reset.again` | refused |",
                     "| `linux.boots` | not run |", "| `console.served` | yes |", "| `console.none` | refused |",
                     "| `console.other` | yes |"):
            self.assertIn(line, self.lines())
        self.call("--check", self.page, one)

    def test_texts_of_abilities_and_cases_are_those_of_the_results(self):
        content = results("one", "", [], fields__nics="passed:served")
        content["abilities"][0]["text"] = "another sentence"
        content["cases"][0]["text"] = "cards of which there is one"
        self.call(self.page, self.write("one.json", content))
        self.assertIn("| `pause`: another sentence | no |", self.lines())
        self.assertIn("| `nics`: cards of which there is one | served |", self.lines())

    def test_column_is_a_backend_and_where_it_ran(self):
        self.call(self.page, *(self.write(f"{number}.json", results(*words)) for number, words in enumerate((
            ("fake", "stand-in", []), ("qemu", "translating", []), ("kvm", "hardware (lab)", ["pause"]), ("other", "", []),
            ("kvm", "emulating", [])))))
        self.assertIn("| capability | kvm, emulating | kvm, hardware (lab) | qemu, translating | fake, stand-in | other |",
                      self.lines())
        self.assertIn("| `pause`: pause and resume | no | yes | no | no | no |", self.lines())

    def test_what_is_written_is_read_again(self):
        said = {"one, here": {"capability pause": "yes", "fields.consoles[0].kind": "served", "pause.stops": "yes"}}
        texts = {"capability pause": "a text", "fields.consoles[0].kind": "which one", "pause.stops": ""}
        self.assertEqual(page.read_page(page.make_page(said, texts)), said)

    def test_other_results_fail_the_check_and_are_shown(self):
        self.call(self.page, self.write("one.json", results("one", "", ["pause"], pause__stops="passed")))
        worse = self.write("one.json", results("one", "", ["pause"], pause__stops="failed"))
        self.assertIn("+| `pause.stops` | FAILED |", self.call("--check", self.page, worse, code=1))

    def test_column_without_results_is_told_and_kept_and_the_check_counts_as_skipped(self):
        here = self.write("here.json", results("one", "here", [], pause__stops="passed"))
        lab = self.write("lab.json", results("one", "lab", ["pause"], pause__stops="notAdvertised"))
        self.call(self.page, here, lab)
        os.remove(lab)
        self.assertIn('no results of "one, lab"', self.call("--check", self.page, here, lab, code=page.SKIPPED))
        self.assertIn('no results of "one, lab"', self.call("--check", self.page, here, code=page.SKIPPED))
        self.call(self.page, here)
        self.assertIn("| `pause.stops` | yes | refused |", self.lines())

    def test_column_without_results_hides_no_difference_in_others(self):
        here = self.write("here.json", results("one", "here", [], pause__stops="passed"))
        self.call(self.page, here, self.write("lab.json", results("one", "lab", [], pause__stops="passed")))
        self.write("here.json", results("one", "here", [], pause__stops="failed"))
        self.assertIn("+| `pause.stops` | FAILED | yes |", self.call("--check", self.page, here, code=1))

    def test_column_that_another_build_looks_at_is_told_and_does_not_skip_the_check(self):
        here = self.write("here.json", results("one", "here", []))
        self.call(self.page, here, self.write("lab.json", results("one", "lab", [])))
        self.assertIn('no results of "one, lab"', self.call("--check", "--elsewhere", "one, lab", self.page, here))
        self.call("--check", "--elsewhere", "another", self.page, here, code=page.SKIPPED)

    def test_column_that_the_page_does_not_have_is_told_and_the_check_counts_as_skipped(self):
        here = self.write("here.json", results("one", "here", []))
        self.call(self.page, here)
        there = self.write("there.json", results("one", "elsewhere", ["pause"]))
        self.assertIn('the page has no "one, elsewhere"', self.call("--check", self.page, here, there, code=page.SKIPPED))
        self.call("--check", self.page, there, code=1)  # nothing at all was compared

    def test_results_that_mean_other_things_are_refused(self):
        other = results("two", "", [])
        other["abilities"][0]["text"] = "another sentence"
        one, two = self.write("one.json", results("one", "", [])), self.write("two.json", other)
        self.assertIn("not of one build", self.call(self.page, one, two, code=1))

    def test_no_results_at_all_fail(self):
        self.call("--check", self.page, "/no/such/results", code=1)


if __name__ == "__main__":
    unittest.main()
