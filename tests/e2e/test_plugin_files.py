"""Plugins that cannot be used: each is refused by name, and the others work on."""
import os
import shutil
import unittest

import harness
from harness import guest
from refusals import Refusals


class PluginInput(Refusals):
    def setUp(self):
        super().setUp()
        self.plugins = os.path.join(self.folder, "plugins")
        os.mkdir(self.plugins, 0o755)
        self.environment["VMMHOST_PLUGIN_PATH"] = self.plugins

    def install(self, name, folder=None):
        path = os.path.join(folder or self.plugins, f"vmmhost-backend-{name}.so")
        shutil.copy(os.path.join(os.environ["VMMHOST_TEST_PLUGINS"], os.path.basename(path)), path)
        os.chmod(path, 0o755)
        return path

    def given(self, name, *more):
        return ("run", "--backend", name, "--rm", "--memory", "64M", "--kernel", guest("poweroff"), *more)

    def test_plugins_that_do_not_fit(self):
        for name, code, *names in (
                ("noentry", 126, "vmmhost_plugin_entry"), ("wrongmajor", 126, "version 2.3", "version 1.2"),
                ("short", 126, "lacks"), ("wrongname", 126, '"other"'), ("crash", 126, "crashed with signal 6"),
                ("crashprobe", 126, "crashed with signal 6"), ("babble", 126, "too much"),
                ("refuses", 126, "the moon is not full", "wait two weeks"), ("throws", 125, "exception"),
                ("olderminor", 125, "name: came with version 1.1", "version 1.0"),
                ("good", 127, "worker"), ("newerminor", 127, "worker")):
            self.install(name)
            self.refuse(name, code, (f"backend {name}", *names), *self.given(name))

    def test_plugins_that_hang_are_given_up_and_do_not_keep_others_from_running(self):
        for name in ("hang", "hangprobe", "crash"):
            self.install(name)
        auto = self.start("run", "--backend", "auto", "--rm", "--memory", "64M", "--kernel", guest("poweroff"))
        slow = [(name, self.start(*self.given(name, *more)))
                for name in ("hang", "hangprobe") for more in ((), ("--json",))]
        for name, process in slow:
            with self.subTest(name):
                result, names = self.finish(process), (f"backend {name}", "did not answer within 5 s")
                (self.check_json_error if result.out else self.check_error)(result, 126, names)
        result = self.finish(auto)
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("chosen", result.err)
        self.assert_left_nothing()

    def test_a_hanging_plugin_can_be_given_up_by_hand(self):
        self.install("hang")
        process = self.start(*self.given("hang", "--name", "waiting"))
        harness.wait_until(lambda: any(name.startswith("vmmhost-plugin") for name, _ in
                                       harness.processes(self.folder).values()), 30, "the probe runs")
        process.terminate()
        self.assertEqual(self.finish(process, timeout=4).code, 143)
        self.assert_left_nothing()

    def test_files_that_are_no_plugins(self):
        path = self.install("good")
        size = os.path.getsize(path)
        for what, code, names, spoil in (
                ("text", 126, (path, "cannot be loaded"), lambda: self.file(path, "no object\n" * 100)),
                ("empty", 126, (path, "cannot be loaded"), lambda: os.truncate(path, 0)),
                ("cut short", 126, "backend good", lambda: os.truncate(path, size // 3)),
                ("header alone", 126, "backend good", lambda: os.truncate(path, 64))):
            self.install("good")
            spoil()
            self.refuse(what, code, names, *self.given("good"))

    def test_files_that_are_not_trusted(self):
        path = self.install("good")
        names = ("good", path, "not trusted")
        os.chmod(path, 0o775)
        self.refuse("file that a group can write", 126, names, *self.given("good"))
        os.chmod(path, 0o757)
        self.refuse("file that others can write", 126, names, *self.given("good"))
        os.chmod(path, 0o755)
        os.chmod(self.plugins, 0o777)
        self.refuse("folder that others can write", 126, (path, self.plugins, "chmod"), *self.given("good"))
        os.chmod(self.plugins, 0o755)
        if os.geteuid() == 0:
            os.chown(path, 1234, 1234)
            self.refuse("file of another user", 126, (*names, "1234"), *self.given("good"))
            os.chown(path, 0, 0)
            os.chown(self.plugins, 1234, 1234)
            self.refuse("folder of another user", 126, (*names, self.plugins, "1234"), *self.given("good"))
            os.chown(self.plugins, 0, 0)
        os.rename(path, os.path.join(self.plugins, "elsewhere"))
        os.symlink("elsewhere", path)
        self.refuse("link", 126, (*names, "symbolic link"), *self.given("good"))
        os.unlink(path)
        os.mkdir(path)
        self.refuse("folder", 125, (path, "regular file"), *self.given("good"))
        os.rmdir(path)
        os.mkfifo(path)
        self.refuse("FIFO", 125, (path, "regular file"), *self.given("good"))

    def test_two_of_one_name(self):
        second = os.path.join(self.folder, "second")
        os.mkdir(second, 0o755)
        both = self.install("good"), self.install("good", second)
        self.refuse("two", 126, both, *self.given("good"),
                    environment={"VMMHOST_PLUGIN_PATH": f"{self.plugins}:{second}"})

    def test_the_others_are_listed_all_the_same(self):
        for name in ("good", "crash", "noentry"):
            self.install(name)
        listed = {entry["name"]: entry for entry in self.check("backends", "--json").json}
        self.assertTrue(listed["good"]["usable"])
        self.assertEqual({name for name, entry in listed.items() if "error" in entry}, {"crash", "noentry"})


if __name__ == "__main__":
    unittest.main()
