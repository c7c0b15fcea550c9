#!/usr/bin/env python3
"""Writes the table of docs/security.md from the results of tests/hostile, or tells whether it is as they say.

    make_table.py [--check] PAGE RESULTS BUILD

RESULTS is the folder that hostile_test wrote with VMMHOST_HOSTILE_RESULTS. BUILD is the build tree: every test that the
page names must be one of its ctest cases (a * stands for several), or for `fuzz.NAME` a target of tests/fuzz.
"""
import difflib
import fnmatch
import os
import re
import subprocess
import sys

BEGIN, END = "<!-- made from results: begin -->\n", "<!-- made from results: end -->\n"
JAILS = ("static", "system")
MOMENTS = ("constructor", "confirm", "start", "thread")


def read(folder):
    """{group: {attack: {jail: {"seen": set, "when": {user: moments}}}}}, in the order of the results."""
    groups = {}
    for name in sorted(os.listdir(folder)):
        group = groups.setdefault(name.split("_")[0], {})
        with open(os.path.join(folder, name)) as file:
            for line in file:
                attack, jail, moment, user, seen = line.rstrip("\n").split("\t")
                entry = group.setdefault(attack, {}).setdefault(jail, {"seen": set(), "when": {}})
                entry["seen"].add(seen)
                entry["when"].setdefault(user, set()).add(moment)
    return groups


def moments(of_jail):
    """The moments of an attack; users are told only where they differ, so that the page is the same for either."""
    texts = {}
    for user, when in of_jail["when"].items():
        text = "all" if when == set(MOMENTS) else ", ".join(moment for moment in MOMENTS if moment in when)
        texts.setdefault(text, []).append(user)
    if len(texts) == 1:
        return next(iter(texts))
    return "; ".join(f"{'/'.join(users)}: {text}" for text, users in sorted(texts.items()))


def table(groups):
    lines = [f"{sum(map(len, groups.values()))} attacks.\n", "\n"]
    for group, attacks in groups.items():
        lines += [f"| {group} | static | system | moments |\n", "|---|---|---|---|\n"]
        for attack, jails in attacks.items():
            seen = [" / ".join(sorted(jails[jail]["seen"])) if jail in jails else "not made" for jail in JAILS]
            when = sorted({moments(of_jail) for of_jail in jails.values()})
            lines.append(f"| {attack} | {seen[0]} | {seen[1]} | {' / '.join(when)} |\n")
        lines.append("\n")
    return "".join(lines)


def missing_tests(page, build):
    listed = subprocess.run(["ctest", "-N"], cwd=build, capture_output=True, text=True, check=True).stdout
    known = re.findall(r"^ *Test +#\d+: (.*)$", listed, re.MULTILINE)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz", "CMakeLists.txt")) as file:
        known += ["fuzz." + target for target in re.findall(r"^vmmhost_fuzz_target\((\w+)", file.read(), re.MULTILINE)]
    named = set(re.findall(r"`((?:[a-z_]+_test|e2e|hostile|conformance|faults|fuzz|lab)\.[A-Za-z0-9_./*-]+)`", page))
    if not named:
        return ["(none at all)"]
    return sorted(name for name in named if not fnmatch.filter(known, name))


def main(arguments):
    check = "--check" in arguments
    path, results, build = [argument for argument in arguments if argument != "--check"]
    with open(path) as file:
        page = file.read()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    groups = read(results)
    if not groups:
        print(f"there are no results in {results}", file=sys.stderr)
        return 1
    made = head + BEGIN + "\n" + table(groups) + END + tail
    failed = False
    if "NOT AS PLANNED" in made:
        print("not all attacks ended as planned", file=sys.stderr)
        failed = True
    for name in missing_tests(made, build):
        print(f"{path} names a test that there is not: {name}", file=sys.stderr)
        failed = True
    if not check:
        with open(path, "w") as file:
            file.write(made)
    elif made != page:
        sys.stderr.writelines(difflib.unified_diff(page.splitlines(True), made.splitlines(True), path, results))
        print("the page and the results differ; cmake --build BUILD --target hostile-page makes it anew",
              file=sys.stderr)
        failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
