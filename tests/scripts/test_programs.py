"""scripts/setup installs whatever scripts, tests and the build start: every program that is found in them (programs.py
says where it looks) is brought by the packages of setup's list, or by those of a minimal Debian with git."""
import os
import shutil
import subprocess
import unittest

import programs
import shell_words

SETUP = os.path.join(programs.TOP, "scripts", "setup")


def setup(*options):
    return subprocess.run([SETUP, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@unittest.skipUnless(shutil.which("dpkg-query"), "no dpkg here: which packages bring what cannot be told")
class Setup(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.packages = programs.Packages()
        cls.started = programs.started()

    def missing(self, listed, option=""):
        """Of the files that count on the packages of this option of setup."""
        of_option = {}
        for program, places in self.started.items():
            places = {name for name in places if programs.NEEDS_OPTION.get(name, "") == option}
            if places:
                of_option[program] = places
        return programs.missing(listed, self.packages, of_option)

    def test_installs_every_program_that_is_started(self):
        for option in ("", "--lint", "--all"):
            options = [option] if option else []
            with self.subTest(option):
                if option and setup("--check", *options).returncode != 0:
                    print(f"packages of scripts/setup {option} are not all here: what they are for is not looked at")
                    continue
                self.assertEqual(self.missing(setup("--list", *options).stdout.split(), option), [])

    def test_list_without_a_package_is_found_wanting(self):
        listed = setup("--list").stdout.split()
        for package, program, place in (("iproute2", "ip", "tests/lab/test_drivers.py"),
                                        ("acpica-tools", "iasl", "worker-kvm/acpi/iasl_test.cc"),
                                        ("capnproto", "capnp", "cmake/Schemas.cmake"),
                                        ("busybox-static", "busybox", "tests/e2e/test_linux.py")):
            self.assertIn(package, listed)
            told = [line for line in self.missing([one for one in listed if one != package])
                    if line.startswith(f"{program}, which ")]
            self.assertEqual(len(told), 1, f"without {package}")
            self.assertIn(place, told[0])
            self.assertIn(f"the package {package}", told[0])


class Reading(unittest.TestCase):
    def test_words_of_a_shell_script(self):
        script = r'''
            one --option "$(two "$three" | four)" <<EOF && five
            six
EOF
            seven=eight nine; ten() { eleven; }
            case "$x" in twelve|thirteen) fourteen ;; *) fifteen >sixteen ;; esac
            if ! seventeen; then eighteen & fi  # nineteen
            for i in twenty; do "$command" x; done; list=(a b "$(inner)")
            [[ a && b ]] || xargs -n 1 program; setpriv --pdeathsig KILL -- behind
            command -v asked; for ((i = 0; i < 2; i++)); do 'quoted'; done; while read -r line; do done < <(piped)
        '''
        names, functions = shell_words.programs(script)
        self.assertEqual(sorted(set(names) - {"[[", "}", "fi", "done", "esac"}),
                         sorted(["one", "two", "four", "five", "nine", "eleven", "fourteen", "fifteen", "seventeen",
                                 "eighteen", "inner", "xargs", "program", "setpriv", "behind", "command", "quoted",
                                 "read", "piped"]))
        self.assertEqual(functions, {"ten"})

    def test_words_of_python_and_c(self):
        self.assertEqual(programs.of_python(
            "subprocess.run(['one', x])\nsubprocess.Popen([y, 'two'])\nz = ['three', '-q']\nw = ['four', 'five']\n"
            "shutil.which('six')\nrun('seven')\nq = ['run', '--rm']\ns = 'mount x; sed y'\n"
            "subprocess.run(['setpriv', '--a', 'B', '--', 'eight' , 'x'])\n") - {"eight"},
            {"one", "three", "six", "setpriv", "mount", "sed"})
        self.assertEqual(programs.of_c('::popen(("one --x " + y).c_str(), "r"); std::system("two"); f("/usr/bin/three");'),
                         {"one", "two", "three"})


if __name__ == "__main__":
    unittest.main()
