"""Which programs scripts, tests and the build start, and which of them the packages bring that a system has on which
scripts/setup has run: Debian's smallest (mmdebstrap --variant=minbase), git, and what scripts/setup lists."""
import ast
import os
import re
import subprocess

import shell_words

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARIES = ("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")
WORD = re.compile(r"[a-z][\w.+-]*$")

# Run inside of guests, where busybox is everything there is; and what is measured beside other people's programs.
NOT_HERE = ("guest/init", "tests/lab/init", "bench/")
# Packages besides scripts/setup's own list that a script may count on: by the option that installs them.
NEEDS_OPTION = {"scripts/lint": "--lint", "scripts/fuzz": "--lint", "scripts/tidy": "--lint", "scripts/fresh": "--all",
                "tests/scripts/test_fresh.py": "--all"}
# The build starts these by names of its own.
OF_THE_BUILD = ("cmake", "ctest", "ninja", "gcc", "g++", "c++", "cc", "ld", "ar", "pkg-config", "python3")
# A program that is used where there is one.
OPTIONAL = {"sudo"}
# What looks like one: verbs of vmmhost and git, what shells of guests are told, files that tests want not to be there.
NO_PROGRAMS = {"run", "inspect", "stop", "conformance", "vmmhost", "commit", "init", "ifconfig", "reboot", "no-such-qemu",
               "vmmhost-hostile", "another", "node"}
PYTHON_CALLS = {"run", "Popen", "call", "check_call", "check_output", "which", "execvp", "execvpe", "execlp", "spawnlp",
                "spawnvp"}


def files():
    """Of this tree, whether they are under git's control yet or not."""
    listed = subprocess.run(["git", "-C", TOP, "-c", "safe.directory=*", "ls-files", "--cached", "--others",
                             "--exclude-standard"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [name for name in listed.splitlines() if not name.startswith(NOT_HERE) and
            os.path.isfile(os.path.join(TOP, name))]


def kind(name, text):
    first = text.partition("\n")[0]
    if name.endswith(".py") or (first.startswith("#!") and "python" in first):
        return "python"
    if name.endswith(".sh") or name == "scripts/steps.sh" or re.match(r"#!.*\b(ba)?sh$", first):
        return "shell"
    if name.endswith((".cc", ".c", ".h")):
        return "c"
    return "cmake" if name.endswith((".cmake", "CMakeLists.txt")) else None


def of_python(text):
    """First words of lists that are handed to subprocess, or that look like a command with options; what is looked for
    in PATH; and what a shell is told, as far as it is a program of this machine."""
    found = set()

    def constant(node):
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    def command(words):
        first = words[0] if words else None
        if first and WORD.match(first):
            found.add(first)
            if first in shell_words.STARTERS:
                rest = words[words.index("--") + 1:] if "--" in words else words[1:]
                found.update(word for word in rest[:1 if "--" in words else None] if word and is_here(word))

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in PYTHON_CALLS:
            for argument in node.args:
                if isinstance(argument, ast.List):
                    command([constant(element) for element in argument.elts])
                    break
                word = constant(argument)
                if word and WORD.match(word) and not isinstance(node.func, ast.Name):
                    command([word])
                    break
        elif isinstance(node, ast.List):
            words = [constant(element) for element in node.elts]
            if len(words) > 1 and any(word and word.startswith("-") for word in words[1:]):
                command(words)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[;|]|\"\$", node.value):
            found.update(word for word in shell_words.programs(node.value)[0] if is_here(word))
    return found - NO_PROGRAMS


def is_here(word):
    return bool(WORD.match(word)) and any(os.path.exists(folder + word) for folder in BINARIES)


def of_c(text):
    """What is told to a shell, and programs by their whole path."""
    told = re.findall(r"(?:\bsystem|\bpopen)\(\(?\"([\w.+-]+)", text)
    whole = re.findall(r"\"/(?:usr/)?s?bin/([\w.+-]+)\"", text)
    return {word for word in told + whole if WORD.match(word)} - NO_PROGRAMS


def of_cmake(text):
    return set(re.findall(r"find_program\(\w+\s+([\w.+-]+)", text))


def started():
    """{program: names of the files that start it}."""
    texts = {}
    for name in files():
        with open(os.path.join(TOP, name), encoding="utf-8", errors="replace") as file:
            text = file.read()
        if kind(name, text):
            texts[name] = text
    builtins = set(subprocess.run(["bash", "-c", "compgen -bk"], stdout=subprocess.PIPE, text=True,
                                  check=True).stdout.split())
    shell = {name: shell_words.programs(text) for name, text in texts.items() if kind(name, text) == "shell"}
    own = builtins.union(*(functions for _, functions in shell.values()))
    found = {}
    for name, text in texts.items():
        words = {"python": of_python, "c": of_c, "cmake": of_cmake}.get(kind(name, text), lambda _: shell[name][0])(text)
        # A path within this tree is no program of a package; one that begins with / is called by its last word.
        for word in {os.path.basename(word) if word.startswith(BINARIES) else word for word in words}:
            if "/" not in word and word not in own | OPTIONAL:
                found.setdefault(word, set()).add(name)
    for word in OF_THE_BUILD:
        found.setdefault(word, set()).add("CMakeLists.txt")
    return found


class Packages:
    """Those that are installed here."""

    def __init__(self):
        form = "${Package}\t${db:Status-Status}\t${Essential}\t${Priority}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
        listed = subprocess.run(["dpkg-query", "-W", "-f", form], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.depends, self.providers, self.base = {}, {}, {"git", "ca-certificates", "apt"}
        for line in listed.splitlines():
            name, status, essential, priority, depends, provides = line.split("\t")
            if status != "installed":
                continue
            self.depends[name] = [[self.bare(word) for word in group.split("|")]
                                  for group in depends.split(",") if group.strip()]
            for virtual in filter(None, map(self.bare, provides.split(","))):
                self.providers.setdefault(virtual, []).append(name)
            if essential == "yes" or priority == "required":
                self.base.add(name)

    @staticmethod
    def bare(text):
        return re.sub(r"[(:\[].*", "", text).strip()

    def with_dependencies(self, names):
        """And everything that they cannot be without."""
        found, queue = set(), list(names)
        while queue:
            name = queue.pop()
            if name in found:
                continue
            found.add(name)
            for group in self.depends.get(name, []):
                here = [word for word in group if word in self.depends]
                queue += here[:1] or [one for word in group for one in self.providers.get(word, [])][:1]
        return found & set(self.depends)

    def programs(self, names):
        """Whole paths of what these packages bring, all below /usr."""
        listed = subprocess.run(["dpkg-query", "-L", *sorted(names)], stdout=subprocess.PIPE, text=True, check=True).stdout
        return {whole(line) for line in listed.splitlines() if line.startswith(BINARIES)}

    @staticmethod
    def owner(program):
        for folder in BINARIES:
            done = subprocess.run(["dpkg-query", "-S", folder + program], stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True)
            if done.returncode == 0:
                return done.stdout.partition(":")[0]
        return None


def whole(path):
    """Below /usr, where the folders of the root folder lead to."""
    return "/usr" + path if path.startswith(BINARIES[2:]) else path


def is_brought(program, paths):
    """By that name, or by one that links lead to: those of update-alternatives are no package's."""
    for folder in BINARIES[:2]:
        path = folder + program
        for _ in range(8):
            if path in paths:
                return True
            if not os.path.islink(path):
                break
            path = whole(os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))))
    return False


def missing(listed, packages, names):
    """A line for each program that these packages of scripts/setup do not bring; `names`: as of started()."""
    paths = packages.programs(packages.with_dependencies(packages.base | set(listed)))
    lines = []
    for program, places in sorted(names.items()):
        if not is_brought(program, paths):
            owner = packages.owner(program)
            lines.append(f"{program}, which {', '.join(sorted(places))} starts: "
                         + (f"it is in the package {owner}" if owner else "it is in no package that is installed here"))
    return lines
