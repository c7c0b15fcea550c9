"""Environments with little in them: as those of cron, of an init, of a container."""
import os
import subprocess
import unittest

import harness
from harness import OrdinaryUserTest, guest
from test_shell import ShellTest


class Bare(ShellTest):
    SAYS = {"run": "hello from the guest\ngood bye\n", "ps": "NAME ", "backends": "qemu", "version": "vmmhost ",
            "doctor": "kvm"}

    def test_nothing_but_the_folders(self):
        bare = {name: self.environment[name] for name in ("VMMHOST_RUNTIME_DIR", "VMMHOST_STATE_DIR")}
        for words in (self.given("hello"), ("ps",), ("backends",), ("version",), ("doctor",)):
            with self.subTest(words[0]):
                done = subprocess.run(self.command(*words), env=bare, capture_output=True, text=True, timeout=60,
                                      cwd="/", stdin=subprocess.DEVNULL)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(self.SAYS[words[0]], done.stdout)

    def test_nothing_at_all_as_root(self):
        if os.geteuid() != 0:
            self.skipTest("the system's folders are root's")
        # On folders of its own in place of the system's.
        script = 'for folder in /run /var/lib /var/cache; do mount -t tmpfs none $folder; done; exec env -i "$@"'
        for words in (self.given("hello"), ("ps", "-a")):
            done = subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash",
                                   *self.command(*words)], capture_output=True, text=True, timeout=60, cwd="/",
                                  stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(self.SAYS[words[0]], done.stdout)

    def test_closed_working_directory(self):
        folder = os.path.join(self.folder, "gone")
        os.mkdir(folder)
        result = self.bash('cd gone && rmdir ../gone && exec "$@"', *self.command("ps"))
        self.assertEqual(result.code, 0, result.err)


class BareUser(OrdinaryUserTest):
    def test_no_home_is_said(self):
        result = subprocess.run([*self.as_user, "env", "-i", harness.VMMHOST, "ps"], capture_output=True, text=True,
                                timeout=60, cwd="/", stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertIn("VMMHOST_STATE_DIR", result.stderr)

    def test_root_folder_as_home_is_a_folder_like_any(self):
        words = [harness.VMMHOST, "ps"]
        bare = {"HOME": "/", "XDG_RUNTIME_DIR": os.path.join(self.folder, "home")}
        result = subprocess.run([*self.as_user, *words], env=bare, capture_output=True, text=True, timeout=60, cwd="/",
                                stdin=subprocess.DEVNULL)
        if os.access("/", os.W_OK) and os.geteuid() != 0:
            self.skipTest("this user may write everywhere")
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertIn("making the folder /.local: Permission denied", result.stderr)
        self.assertIn("VMMHOST_STATE_DIR", result.stderr)
        if os.geteuid() != 0:
            return
        # Where it is the user's: everything else of this machine below a root folder of the user's own.
        script = ('mount -t tmpfs -o mode=0755,uid=$1 none "$2"; cd "$2"; shift 2; for path in /*; do '
                  'if [ -L "$path" ]; then cp -P "$path" .; elif [ -d "$path" ]; then '
                  'mkdir "${path#/}"; mount --rbind "$path" "${path#/}"; fi; done; '
                  'mkdir old; pivot_root . old; umount -l /old; cd /; exec "$@"')
        own = {"HOME": "/", "XDG_RUNTIME_DIR": "/", "PATH": os.environ["PATH"]}
        result = subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash",
                                 str(harness.USER), self.folder, *self.as_user, *words], env=own, text=True,
                                capture_output=True, timeout=60, cwd="/", stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("NAME ", result.stdout)

    def test_home_is_enough(self):
        result = subprocess.run([*self.as_user, "env", "-i", f"HOME={self.folder}/home",
                                 f"XDG_RUNTIME_DIR={self.folder}/home", harness.VMMHOST, "run", "--backend", "qemu",
                                 "--memory", "64M", "--rm", "--kernel", guest("hello")], capture_output=True, text=True,
                                timeout=60, cwd="/", stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("hello from the guest", result.stdout)


if __name__ == "__main__":
    unittest.main()
