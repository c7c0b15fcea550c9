"""scripts/layers: an include that does not run downwards is named, and so is a folder that the table does not know."""
import os
import subprocess
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = """# A page
<!-- layers: begin -->
| tree | stands on | folders, from the lowest up |
|---|---|---|
| `low` | `schemas` | `low/include` < `low/a`, `low/b` < `low/c` < `low` |
| `high` | `schemas`, `low/include` | `high` |
<!-- layers: end -->
"""
FILES = {
    "low/include/vmmhost/one.h": '#include "vmmhost/schema/x.capnp.h"',
    "low/a/a.h": '#include "vmmhost/one.h"\n#include "low/a/other.h"',
    "low/c/c.cc": '#include "low/a/a.h"\n#include "low/b/b.h"\n#include <vector>',
    "low/main.cc": '#include "low/c/c.h"',
    "low/a/a_test.cc": '#include "low/c/c.h"',
    "high/main.cc": '#include "vmmhost/one.h"',
}


class Layers(unittest.TestCase):
    def layers(self, more):
        """What the script says of a tree with these files."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**FILES, **more, "page.md": TABLE}.items():
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(os.path.join(folder, name), "w") as file:
                    file.write(text + "\n")
            subprocess.run(["git", "init", "-q", folder], check=True)
            return subprocess.run([os.path.join(TOP, "scripts", "layers"), "page.md"], cwd=folder, capture_output=True,
                                  text=True)

    def refused(self, name, text, told):
        result = self.layers({name: text})
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertEqual(result.stderr.strip(), told)

    def test_downwards(self):
        result = self.layers({})
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("0 that do not run downwards", result.stdout)

    def test_upwards(self):
        self.refused("low/a/up.cc", '#include "low/c/c.h"', "low/a/up.cc: includes low/c/c.h, which is not below low/a")

    def test_sideways(self):
        self.refused("low/b/b.cc", '#include "low/a/a.h"', "low/b/b.cc: includes low/a/a.h, which is not below low/b")

    def test_into_another_tree(self):
        self.refused("high/x.cc", '#include "low/a/a.h"', "high/x.cc: includes low/a/a.h, which is not below high")
        self.refused("low/c/x.cc", '#include "high/x.h"', "low/c/x.cc: includes high/x.h, which is not below low/c")

    def test_folder_that_the_table_does_not_know(self):
        self.refused("low/new/x.cc", "", "low/new/x.cc: its folder is not in the table of page.md")
        self.refused("low/c/x.cc", '#include "low/new/x.h"',
                     "low/c/x.cc: includes low/new/x.h, which is not below low/c")

    def test_nothing_looked_at(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "page.md"), "w") as file:
                file.write(TABLE)
            subprocess.run(["git", "init", "-q", folder], check=True)
            result = subprocess.run([os.path.join(TOP, "scripts", "layers"), "page.md"], cwd=folder,
                                    capture_output=True, text=True)
        self.assertEqual(result.returncode, 1)


if __name__ == "__main__":
    unittest.main()
