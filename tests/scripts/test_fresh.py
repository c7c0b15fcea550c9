"""scripts/fresh, with a root folder that holds busybox and nothing else, made by what stands in for mmdebstrap."""
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

FRESH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "fresh")
DEADLINE = 60
PROGRAMS = {
    "mmdebstrap": r"""#!/bin/sh
printf '%s\n' "$@" >"$FAKE/arguments"
for root; do case "$root" in */vmmhost-fresh-*) break ;; esac; done
cd "$root" && mkdir bin dev etc mnt proc sys usr && cp "$(command -v busybox)" bin/busybox &&
for applet in sh cat ls mount sleep umount unshare; do ln -s busybox bin/$applet; done
printf '#!/bin/sh\n' >bin/update-ca-certificates && chmod +x bin/update-ca-certificates
""",
    "apt-get": r"""#!/bin/sh
printf 'http://mirror.invalid/debian\t%s\t%s\t%s\t%s\n' bookworm bookworm main /keys.gpg \
  bookworm-updates bookworm main '' trixie trixie main ''
""",
    "apt-config": "#!/bin/sh\necho 'Acquire::http::Proxy \"http://proxy.invalid:1\";'\necho 'APT::Other \"x\";'\n",
}


@unittest.skipUnless(os.geteuid() == 0, "takes root: it mounts")
@unittest.skipUnless(shutil.which("busybox"), "no busybox here")
class Fresh(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="vmmhost-fresh-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.places = {name: os.path.join(self.folder, name) for name in ("bin", "tmp", "tree/scripts")}
        for place in self.places.values():
            os.makedirs(place)
        for name, text in PROGRAMS.items():
            self.write(os.path.join("bin", name), text)
        self.tree = os.path.join(self.folder, "tree")
        shutil.copy(FRESH, os.path.join(self.tree, "scripts"))
        self.environment = {**os.environ, "PATH": self.places["bin"] + ":" + os.environ["PATH"], "FAKE": self.folder,
                            "TMPDIR": self.places["tmp"], "GIT_CONFIG_GLOBAL": "/dev/null", "SECRET": "of this machine"}

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o755)

    def commit(self, **scripts):
        for name, text in scripts.items():
            self.write(f"tree/scripts/{name}", "#!/bin/sh\n" + text)
        git = ["git", "-C", self.tree, "-c", "user.name=n", "-c", "user.email=e"]
        self.write("tree/.gitignore", "build/\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
            subprocess.run([*git, *words], check=True, env=self.environment)

    def start(self, *options):
        return subprocess.Popen([os.path.join(self.tree, "scripts", "fresh"), *options], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env=self.environment)

    def run_fresh(self, *options, code=0):
        process = self.start(*options)
        try:
            out = process.communicate(timeout=DEADLINE)[0]
        finally:
            process.kill()
        self.assertEqual(process.returncode, code, out)
        return out

    def log(self, name):
        with open(os.path.join(self.tree, "build", f"fresh-{name}.log"), encoding="utf-8") as file:
            return file.read()

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.places["tmp"]), [])
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            self.assertNotIn(self.folder, file.read())

    def test_both_scripts_run_in_a_root_of_their_own_where_user_namespaces_can_be_made(self):
        self.commit(**{"try": "unshare -U sh -c 'echo inside' && ls / && ls /dev/null && echo secret: $SECRET",
                       "test": "test -f ../vmmhost/scripts/try && echo $$ && cat /proc/1/cmdline"})
        out = self.run_fresh()
        self.assertEqual(self.log("try").split(), ["inside", *sorted(
            ["bin", "dev", "etc", "home", "mnt", "proc", "sys", "usr"]), "/dev/null", "secret:"])
        self.assertTrue(self.log("test").startswith("1\n"), "a PID namespace of its own")
        self.assertNotIn("FAILED", out)
        self.assert_nothing_left()
        with open(os.path.join(self.folder, "arguments"), encoding="utf-8") as file:
            arguments = file.read().splitlines()
        self.assertEqual([word for word in arguments if "mirror" in word],
                         ["deb [signed-by=/keys.gpg] http://mirror.invalid/debian bookworm main",
                          "deb http://mirror.invalid/debian bookworm-updates main"])
        self.assertIn("--variant=minbase", arguments)
        self.assertEqual([word for word in arguments if word.startswith("--aptopt")],
                         ['--aptopt=Acquire::http::Proxy "http://proxy.invalid:1"'])

    def test_one_that_fails_is_shown_and_nothing_is_left(self):
        self.commit(**{"try": "echo last words; exit 3", "test": "echo never"})
        out = self.run_fresh(code=1)
        self.assertIn("| last words", out)
        self.assertIn("try: exit code 3", out)
        self.assertNotIn("test", out.partition("FAILED")[2])
        self.assert_nothing_left()

    def test_only_the_first_and_what_is_not_committed_is_told(self):
        self.commit(**{"try": "true", "test": "exit 1"})
        self.write("tree/scripts/more", "x")
        self.assertIn("1 files have changes that are not committed", self.run_fresh("--try-only"))

    def test_a_signal_ends_it_with_all_that_it_started(self):
        token = "7" + str(os.getpid()).zfill(8)  # seconds, which nobody else sleeps
        self.commit(**{"try": f"sleep {token} & sleep {token}", "test": "true"})
        process = self.start()

        def sleepers():
            found = []
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        if file.read() == f"sleep\0{token}\0".encode():
                            found.append(pid)
                except OSError:
                    pass
            return found

        end = time.monotonic() + DEADLINE
        while len(sleepers()) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(len(sleepers()), 2)
        process.send_signal(signal.SIGTERM)
        out = process.communicate(timeout=DEADLINE)[0]
        self.assertEqual(process.returncode, 143, out)
        self.assertEqual(sleepers(), [])
        self.assert_nothing_left()

    def test_system_without_sources_of_that_suite(self):
        self.write("bin/apt-get", "#!/bin/sh\nprintf 'http://mirror.invalid/debian\\ttrixie\\ttrixie\\tmain\\t\\n'\n")
        self.commit(**{"try": "true"})
        self.assertIn("apt names no source of bookworm here", self.run_fresh(code=1))
        self.assert_nothing_left()

    def test_wrong_usage(self):
        self.assertIn("--other", self.run_fresh("--other", code=125))
        self.environment["PATH"] = "/nowhere:/usr/bin:/bin" if not shutil.which("mmdebstrap", path="/usr/bin:/bin") else ""
        if self.environment["PATH"]:
            self.assertIn("scripts/setup --all", self.run_fresh(code=125))


if __name__ == "__main__":
    unittest.main()
