"""The schemas of then are part of today's; and a check of the check: each kind of break is found and named."""
import os
import shutil
import tempfile
import unittest

import schemas

THEN = os.path.join(os.environ["COMPAT_THEN"], "schemas")
TODAY = os.path.join(os.environ["COMPAT_SOURCE"], "schemas")
INCLUDE = os.environ["COMPAT_CAPNP_INCLUDE"]


class Schemas(unittest.TestCase):
    def test_all_of_then_is_there(self):
        self.assertEqual(schemas.compare(THEN, TODAY, INCLUDE), [])


class Breaks(unittest.TestCase):
    """On copies of the schemas of then."""
    maxDiff = None

    def changed(self, file, *replacements):
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(THEN, os.path.join(folder, "schemas"))
            path = os.path.join(copy, file)
            with open(path) as opened:
                text = opened.read()
            for old, new in replacements:
                self.assertEqual(text.count(old), 1, old)
                text = text.replace(old, new)
            with open(path, "w") as opened:
                opened.write(text)
            return schemas.compare(THEN, copy, INCLUDE)

    def test_renamed_field(self):
        self.assertEqual(self.changed("vm.capnp", ("hugePages @3", "largePages @3")),
                         ["Memory.hugePages: gone; its number has largePages now"])

    def test_changed_numbers_of_methods(self):
        self.assertEqual(self.changed("host.capnp", ("pause @4", "pause @5"), ("resume @5", "resume @4")),
                         ["Control.pause: the number was 4, is 5", "Control.resume: the number was 5, is 4"])

    def test_field_in_the_middle(self):
        found = self.changed("host.capnp", ("timeoutMs @3", "wait @3 :UInt32;\n  timeoutMs @4"),
                             ("removeOnEnd @4", "removeOnEnd @5"), ("detached @5 :Bool;  ", "detached @6 :Bool;"),
                             ("without @6", "without @7"), ("clientStartNs @7", "clientStartNs @8"),
                             ("runtimeDirectory @8", "runtimeDirectory @9"), ("stateDirectory @9", "stateDirectory @10"),
                             ("pluginPath @10", "pluginPath @11"), ("measureMemory @11", "measureMemory @12"))
        self.assertIn("LaunchRequest.timeoutMs: the number was @3, is @4", found)

    def test_changed_type(self):
        self.assertIn("Memory.hugePages: the type was bool, is uint8",
                      self.changed("vm.capnp", ("hugePages @3 :Bool", "hugePages @3 :UInt8")))
        self.assertEqual(self.changed("vm.capnp", ("cache @4 :Cache", "cache @4 :Format")),
                         ["Disk.cache: the type was Disk.Cache, is Disk.Format"])

    def test_changed_default(self):
        self.assertEqual(self.changed("vm.capnp", ("count @0 :UInt32 = 1", "count @0 :UInt32 = 2")),
                         ["Cpus.count: the default was {'uint32': 1}, is {'uint32': 2}"])

    def test_renamed_enumerant(self):
        self.assertEqual(self.changed("worker.capnp", ("panic @5", "kernelPanic @5")),
                         ["EndCause.panic: gone; its number has kernelPanic now"])

    def test_renamed_member_of_a_group(self):
        self.assertEqual(self.changed("worker.capnp", ("queue @5", "line @5")),
                         ["Resource.nic.queue: gone; its number has line now"])

    def test_renamed_type(self):
        self.assertIn("Share: gone, or has another name or id",
                      self.changed("vm.capnp", ("struct Share", "struct SharedFolder"), ("List(Share)", "List(SharedFolder)")))

    def test_renamed_parameter_and_result(self):
        self.assertEqual(self.changed("host.capnp", ("setBalloon @13 (target", "setBalloon @13 (size"),
                                      ("watch @9 (sink :StateSink) -> (error", "watch @9 (sink :StateSink) -> (fault")),
                         ["Control.watch results.error: gone; its number has fault now",
                          "Control.setBalloon parameters.target: gone; its number has size now"])

    def test_annotation_that_is_gone(self):
        self.assertEqual(self.changed("vm.capnp", ("resource @1 :UInt32 $hostOnly", "resource @1 :UInt32")),
                         ["FileRef.resource: $hostOnly is gone"])

    def test_changed_version(self):
        self.assertEqual(self.changed("host.capnp", ("controlMajor :UInt16 = 1", "controlMajor :UInt16 = 2")),
                         ["controlMajor: the value was 1, is 2"])
        self.assertEqual(self.changed("worker.capnp", ("protocolMinor :UInt16 = 1", "protocolMinor :UInt16 = 0")),
                         ["protocolMinor: the value was 1, is 0"])

    def test_additions_are_fine(self):
        self.assertEqual(self.changed("host.capnp", ("controlMinor :UInt16 = 1", "controlMinor :UInt16 = 2"),
                                      ("balloon @14 () ->", "suspend @15 () -> (error :Error);\n  balloon @14 () ->"),
                                      ("port :UInt32) -> (stream", "port :UInt32, theme :Text) -> (stream"),
                                      ("preparing @0", "broken @6;\n  preparing @0")), [])
        self.assertEqual(self.changed("worker.capnp", ("queue @5 :UInt32;", "queue @5 :UInt32;\n      pair @6 :UInt32;"),
                                      ("bootPhase @3", "warning @4 :Text;\n    bootPhase @3"),
                                      ("snapshots @4", "migration @7 :Snapshots;\n  snapshots @4")), [])
        self.assertEqual(self.changed("vm.capnp", ("annotation byteSize(field)", "annotation since(field) :UInt16;\n"
                                                   "annotation byteSize(field, struct)"),
                                      ("hugePages @3 :Bool;", "hugePages @3 :Bool $since(1);\n  node @4 :UInt32;")), [])


if __name__ == "__main__":
    unittest.main()
