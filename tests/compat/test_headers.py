"""What was written against the headers of then compiles and fits today; and checks of these checks."""
import os
import shutil
import subprocess
import tempfile
import unittest

import headers

THEN = os.path.join(os.environ["COMPAT_THEN"], "include")
SOURCE = os.environ["COMPAT_SOURCE"]
BUILD = os.environ["COMPAT_BUILD"]
STAGE = os.environ["VMMHOST_STAGE"]
TODAY = [os.path.join(SOURCE, "ipc", "include"), os.path.join(SOURCE, "host", "include")]


class Headers(unittest.TestCase):
    def test_plugin_interface_is_the_same_or_longer(self):
        self.assertEqual(headers.compare_plugin(THEN, TODAY[1]), [])

    def test_each_header_is_there_and_brings_what_it_brought(self):
        self.assertEqual(headers.compare_includes(THEN, TODAY), [])

    def test_headers_and_schemas_are_installed(self):
        """By today's build: a prefix may still have what an earlier one put there."""
        with open(os.path.join(BUILD, "install_manifest.txt")) as file:
            installed = {line.strip().partition("/stage/")[2] for line in file}
        wanted = {f"include/{header}" for header in headers.headers_in(THEN)}
        wanted |= {f"share/vmmhost/schemas/{name}" for name in os.listdir(os.path.join(THEN, "..", "schemas"))}
        self.assertEqual(sorted(wanted - installed), [])

    def test_library_exports_what_it_exported(self):
        """The names that programs built then look for, and the library that they look in."""
        with open(os.path.join(THEN, "..", "symbols.txt")) as file:
            then = {line.strip() for line in file if not line.startswith("#")}
        listed = subprocess.run(["nm", "-D", "--defined-only", "--format=posix",
                                 os.path.join(STAGE, "lib", "libvmmhost.so")],
                                check=True, stdout=subprocess.PIPE, text=True).stdout
        now = {line.split()[0] for line in listed.splitlines()}
        dynamic = subprocess.run(["readelf", "-dW", os.path.join(STAGE, "lib", "libvmmhost.so")], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
        self.assertIn("[libvmmhost.so.0]", dynamic)
        gone = subprocess.run(["c++filt"], input="\n".join(sorted(then - now)), check=True, stdout=subprocess.PIPE,
                              text=True).stdout.split("\n")
        self.assertEqual([name for name in gone if name], [])


class Breaks(unittest.TestCase):
    """On copies of the headers of then."""
    maxDiff = None

    def copy(self, header, *replacements):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        shutil.copytree(THEN, folder, dirs_exist_ok=True)
        path = os.path.join(folder, header)
        with open(path) as file:
            text = file.read()
        for old, new in replacements:
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        with open(path, "w") as file:
            file.write(text)
        return folder

    def plugin(self, *replacements):
        return headers.compare_plugin(THEN, self.copy(headers.PLUGIN, *replacements))

    def test_struct_that_has_grown_in_the_middle(self):
        found = self.plugin(("  const char* summary; ", "  const char* vendor;\n  const char* summary; "))
        self.assertEqual(found[0], "vmmhost_probe_result.summary: the place was offset 24, 8 bytes, type PKc, "
                                   "is offset 32, 8 bytes, type PKc")
        self.assertEqual(len(found), 6)

    def test_renamed_field(self):
        self.assertEqual(self.plugin(("uint32_t ring_count;", "uint32_t rings;")),
                         ["vmmhost_launch_plan.ring_count: gone"])

    def test_other_parameters_of_a_function(self):
        found = self.plugin(("int (*validate)(const vmmhost_host_api* host, const", "int (*validate)(const"))
        self.assertEqual([line.partition(":")[0] for line in found], ["vmmhost_plugin.validate"])

    def test_longer_item_of_an_array(self):
        found = self.plugin(("absolute, inside the root */", "*/\n  const char* options;"))
        self.assertEqual(found, ["vmmhost_bind: the size was 16, is 24"])

    def test_changed_values(self):
        self.assertEqual(self.plugin(('"boot-pvh"', '"pvh"'), ("VMMHOST_ROOT_SYSTEM = 1", "VMMHOST_ROOT_SYSTEM = 2"),
                                     ("#define VMMHOST_CAP_SMP", "#define VMMHOST_CAP_CPUS")),
                         ["VMMHOST_CAP_SMP: gone", 'VMMHOST_CAP_BOOT_PVH: the value was "boot-pvh", is "pvh"',
                          "VMMHOST_ROOT_SYSTEM: the value was 1, is 2"])

    def test_another_major_version(self):
        found = self.plugin(("ABI_MAJOR 1u", "ABI_MAJOR 2u"))
        self.assertEqual(found, ["VMMHOST_PLUGIN_ABI_MAJOR: the value was 1, is 2"])

    def test_additions_are_fine(self):
        self.assertEqual(self.plugin(("  uint32_t reserved;\n} vmmhost_probe_result;",
                                      "  uint32_t reserved;\n  uint64_t frequency;\n} vmmhost_probe_result;"),
                                     ("ABI_MINOR 1u", "ABI_MINOR 2u"),
                                     ("/* Capability names.", '#define VMMHOST_CAP_NEW "new"\n/* Capability names.')), [])

    def test_include_that_is_gone(self):
        copy = self.copy("vmmhost/worker/worker.h", ('#include "vmmhost/rings.h"\n', ""))
        self.assertIn("vmmhost/worker/worker.h: does not bring vmmhost/rings.h any more",
                      headers.compare_includes(THEN, [copy]))

    def test_header_that_is_gone(self):
        copy = self.copy("vmmhost/seccomp.h")
        os.unlink(os.path.join(copy, "vmmhost/seccomp.h"))
        self.assertEqual(headers.compare_includes(THEN, [copy]), ["vmmhost/seccomp.h: gone"])


if __name__ == "__main__":
    unittest.main()
