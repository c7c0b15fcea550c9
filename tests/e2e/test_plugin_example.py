"""The example of docs/plugins.md, built and installed as the page says, and run."""
import os
import re
import subprocess
import unittest

import harness
from harness import guest

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "plugins.md")
STAGE = os.environ["VMMHOST_STAGE"]


class PluginExample(harness.VmmhostTest):
    def make(self, *arguments, **variables):
        done = subprocess.run(["cmake", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, **variables})
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_example_of_the_page(self):
        source, build, root = (os.path.join(self.folder, name) for name in ("source", "build", "root"))
        os.mkdir(source)
        with open(PAGE) as page:
            files = re.findall(r"^`([A-Za-z.]+)`\n```\w+\n(.*?)^```$", page.read(), re.MULTILINE | re.DOTALL)
        self.assertEqual([name for name, _ in files], ["CMakeLists.txt", "plugin.c", "worker.cc"])
        for name, text in files:
            with open(os.path.join(source, name), "w") as file:
                file.write(text)
        self.make("-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_PREFIX_PATH=" + STAGE)
        self.make("--build", build)
        self.make("--install", build, DESTDIR=root)
        plugin, = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names
                   if name == "vmmhost-backend-hello.so")
        self.environment["VMMHOST_PLUGIN_PATH"] = os.path.dirname(plugin)
        result = self.check("run", "--backend", "hello", "--rm", "--kernel", guest("hello"), "--json")
        outcome = result.json["outcome"]
        self.assertEqual((outcome["cause"], outcome["detail"]), ("powerOff", "said hello"))
        self.assertEqual(result.err, "hello\n")


if __name__ == "__main__":
    unittest.main()
