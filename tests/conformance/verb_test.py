"""`vmmhost conformance` as a third party uses it: exit codes, JSON, patterns, plugins that are no good."""
import os
import re
import shutil
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "e2e"))
from harness import STAGE, VmmhostTest, wait_until  # noqa: E402

PLUGIN_INTERFACE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../host/include/vmmhost/plugin.h")
FAKE = os.environ["VMMHOST_FAKE_PLUGIN"]
TEST_PLUGINS = os.environ["VMMHOST_TEST_PLUGINS"]


class Conformance(VmmhostTest):
    def setUp(self):
        super().setUp()
        self.scratch = os.path.join(self.folder, "tmp")
        os.mkdir(self.scratch, 0o700)
        self.environment["TMPDIR"] = self.scratch

    def conformance(self, *arguments, code=0, **options):
        result = self.check("conformance", *arguments, code=code, **options)
        self.assertEqual(os.listdir(self.scratch), [], "folders left")
        return result

    def test_json_tells_every_case(self):
        found = self.conformance("--plugin", FAKE, "--case", "exits", "--json").json
        self.assertTrue(found["conforms"])
        self.assertEqual(found["backend"]["name"], "fake")
        listed = self.conformance("--list", "--case", "exits", "--json").json
        self.assertEqual([case["name"] for case in found["cases"]], [case["name"] for case in listed])
        self.assertEqual({case["result"] for case in found["cases"]}, {"passed"})

    def test_abilities_are_told_as_the_plugin_interface_tells_them(self):
        with open(PLUGIN_INTERFACE, encoding="utf-8") as file:
            header = file.read()
        defined = re.findall(r'^#define VMMHOST_CAP_\w+ "([^"]*)" +/\* (.*) \*/$', header, re.MULTILINE)
        self.assertEqual(len(defined), len(re.findall("^#define VMMHOST_CAP_", header, re.MULTILINE)), "one has no text")
        found = self.conformance("--plugin", FAKE, "--case", "exits", "--json").json
        self.assertEqual([(ability["name"], ability["text"]) for ability in found["abilities"]], defined)
        needing = {ability["name"]: ability["cases"] for ability in found["abilities"]}
        self.assertIn("exits.power-off", needing["boot-pvh"])
        self.assertEqual(needing["triple-fault"], ["exits.triple-fault"])

    def test_place_is_told(self):
        self.assertEqual(self.conformance("--plugin", FAKE, "--case", "exits.power-off", "--json").json["backend"]["place"],
                         "emulating")

    def test_text_ends_with_a_summary(self):
        out = self.conformance("--plugin", FAKE, "--case", "exits.power-off").out.splitlines()
        self.assertTrue(out[0].startswith("ok "), out)
        self.assertEqual(out[-1], "backend fake: 1 passed, 0 failed")

    def test_relative_path_of_a_plugin(self):
        self.conformance("--plugin", os.path.basename(FAKE), "--case", "exits.power-off", cwd=os.path.dirname(FAKE))

    def test_refusal_is_told(self):
        case, = self.conformance("--plugin", FAKE, "--case", "config.two-processors", "--json").json["cases"]
        self.assertEqual(case["result"], "notAdvertised")
        self.assertIn("cpus.count", case["detail"])

    def test_what_is_not_run_is_told(self):
        if not os.path.exists("/usr/bin/qemu-system-x86_64"):
            self.skipTest("no QEMU")
        result = self.conformance("--backend", "qemu", "--case", "linux.reboot")
        self.assertIn("not run", result.out)
        self.assertIn("--kernel", result.out)

    def test_backend_that_does_not_conform_exits_1(self):
        # Its worker is not beside it: nothing starts.
        plugin = shutil.copy(FAKE, os.path.join(self.folder, "home", os.path.basename(FAKE)))
        found = self.conformance("--plugin", plugin, "--case", "exits.power-off", "--json", code=1).json
        self.assertFalse(found["conforms"])
        self.assertIn("vmmhost-worker-fake", found["cases"][0]["detail"])

    def refuse(self, code, name, *arguments):
        result = self.conformance(*arguments, code=code)
        self.assertIn(name, result.err)
        self.assertEqual(len([line for line in result.err.splitlines() if line.startswith("vmmhost:")]), 1, result.err)
        error = self.conformance(*arguments, "--json", code=code).json["error"]
        self.assertIn(name, error["message"] + error["hint"])

    def test_wrong_usage(self):
        self.refuse(125, "--backend NAME", "--case", "exits")
        self.refuse(125, "vmmhost-backend", "--plugin", "/etc/passwd")
        self.refuse(125, "--jobs", "--plugin", FAKE, "--jobs", "many")

    def test_what_is_not_there(self):
        self.refuse(127, "no-such-backend", "--backend", "no-such-backend")
        self.refuse(127, "/no/such/vmmhost-backend-x.so", "--plugin", "/no/such/vmmhost-backend-x.so")
        self.refuse(127, "no-such-case", "--plugin", FAKE, "--case", "no-such-case")
        self.refuse(127, "/no/such/kernel", "--plugin", FAKE, "--kernel", "/no/such/kernel", "--initrd", FAKE)

    def test_plugin_that_crashes(self):
        self.refuse(126, "crash", "--plugin", os.path.join(TEST_PLUGINS, "vmmhost-backend-crash.so"))

    def test_signal_ends_all(self):
        process = self.start("conformance", "--plugin", FAKE, "--case", "deadlines.verb-to-a-frozen-worker")
        wait_until(lambda: os.listdir(self.scratch) and
                   any("vmmhost.log" in files or "host.log" in files for _, _, files in os.walk(self.scratch)),
                   30, "a case is under way")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(process).code, 143)
        self.assertEqual(os.listdir(self.scratch), [], "folders left")

    def test_installed_beside_the_command(self):
        self.assertTrue(os.access(os.path.join(STAGE, "libexec/vmmhost/vmmhost-conformance"), os.X_OK))
        self.assertIn("poweroff.elf", os.listdir(os.path.join(STAGE, "share/vmmhost/conformance")))


if __name__ == "__main__":
    unittest.main()
