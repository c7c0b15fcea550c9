"""Makes docs/capabilities.md from the results of conformance runs, so that the page cannot tell otherwise than they do.

    page.py PAGE RESULTS.json...            writes the page
    page.py --check PAGE RESULTS.json...    exit code 1 and the difference if the page is not what the results make

Results are those of `vmmhost conformance --json`. A backend whose results are not there (its machine lacks what it
needs) keeps what the page says of it; that is told. Neither times nor facts of a machine are put into the page.
"""
import difflib
import json
import os
import re
import sys

CAPABILITIES = (
    ("boot-pvh", "ELF kernels with a PVH note"),
    ("boot-linux", "kernels as distributions ship them"),
    ("initrd", "initial RAM disk"),
    ("smp", "more than one processor"),
    ("disk", "disks"),
    ("nic", "network cards, on TAP devices or on none"),
    ("console-serial", "serial console, both directions"),
    ("console-virtio", "several consoles, which know the size of a terminal"),
    ("pause", "pause and resume"),
    ("power-button", "the guest is asked to power off"),
    ("reset", "the guest starts again"),
    ("triple-fault", "told apart from a reset"),
    ("counters", "counters in `inspect`"),
    ("balloon", "memory that the guest gives back while it runs"),
    ("vsock", "a vsock device, connections both ways"),
)
WORDS = {"passed": "yes", "failed": "FAILED", "notAdvertised": "refused", "needsAbsent": "not run"}
HEAD = """# Capabilities

Made from the results of `vmmhost conformance` by `tests/conformance/page.py`; the test `conformance.page` fails when
they differ. To make it anew, in a tree that is built:

    ctest --preset release -R '^conformance\\.(kvm|qemu|fake)$'
    cmake --build --preset release --target conformance-page

A capability that a backend advertises is one that was seen to work; one that it does not advertise was seen to be
refused. `kvm` and `qemu` are described in the README, `fake` is the test suite's own backend, which plays guests
without running them.
"""


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def table(first, backends, rows):
    return row([first, *backends]) + "|" + "---|" * (len(backends) + 1) + "\n" + "".join(row(cells) for cells in rows)


def read_results(path):
    """backend name -> (capability or case -> word), from one run."""
    with open(path) as file:
        results = json.load(file)
    words = {}
    for name in results["backend"]["capabilities"]:
        words["capability " + name] = "yes"
    for name, _ in CAPABILITIES:
        words.setdefault("capability " + name, "no")
    for case in results["cases"]:
        word = WORDS[case["result"]]
        if case["name"].startswith("fields.") and case["result"] == "passed":
            word = case["observed"]
        words[case["name"]] = word
    return results["backend"]["name"], words


def read_page(text):
    """What a page says, in the same form."""
    said = {}
    backends = []
    kind = ""
    for line in text.splitlines():
        if not line.startswith("| "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ("capability", "field", "case"):
            kind, backends = cells[0], cells[1:]
            continue
        key = re.sub(r"`", "", cells[0].split(":")[0])
        prefix = {"capability": "capability ", "field": "fields.", "case": ""}[kind]
        for backend, word in zip(backends, cells[1:]):
            said.setdefault(backend, {})[prefix + key] = word
    return said


def make_page(said):
    order = ["kvm", "qemu", "fake"]
    backends = sorted(said, key=lambda name: (order.index(name) if name in order else len(order), name))
    cases = []
    for backend in backends:
        cases += [name for name in said[backend] if not name.startswith("capability ") and name not in cases]

    def cells(name):
        return [said[backend].get(name, "-") for backend in backends]

    text = HEAD
    text += "\n## What a backend advertises\n\n"
    text += table("capability", backends, [["`" + name + "`: " + what, *cells("capability " + name)]
                                           for name, what in CAPABILITIES])
    own = sorted({name for backend in backends for name in said[backend] if name.startswith("capability ")} -
                 {"capability " + name for name, _ in CAPABILITIES})
    if own:
        text += "\n" + table("capability", backends, [["`" + name[len("capability "):] + "`", *cells(name)]
                                                      for name in own])
    text += ("\n## Fields of a configuration\n\nFields of `schemas/vm.capnp` that a backend may serve or not. What is "
             "not served is refused as `unsupported`, and\nthe field is named.\n\n")
    text += table("field", backends, [["`" + name[len("fields."):] + "`", *cells(name)]
                                      for name in cases if name.startswith("fields.")])
    text += ("\n## Behaviours\n\n`yes`: seen to be so. `refused`: the case needs a capability that the backend does "
             "not advertise, and what it stands\nfor was refused. `not run`: something besides the backend was "
             "missing.\n")
    areas = []
    for name in cases:
        area = name.split(".")[0]
        if area not in areas and area != "fields":
            areas.append(area)
    for area in areas:
        text += "\n### " + area + "\n\n"
        text += table("case", backends, [["`" + name + "`", *cells(name)]
                                         for name in cases if name.split(".")[0] == area])
    return text


def main():
    arguments = sys.argv[1:]
    check = arguments[:1] == ["--check"]
    page, paths = arguments[1 if check else 0], arguments[2 if check else 1:]
    before = ""
    if os.path.exists(page):
        with open(page) as file:
            before = file.read()
    found = dict(read_results(path) for path in paths if os.path.exists(path))
    if not found:
        print("there are no results: run the tests conformance.* first")
        return 1
    kept = read_page(before)
    said = {**kept, **found}
    for backend in sorted(set(kept) - set(found)):
        print(f"no results of {backend} on this machine: what the page says of it is not compared")
    text = make_page(said)
    if check:
        difference = list(difflib.unified_diff(before.splitlines(), text.splitlines(), page, "results", lineterm="",
                                               n=0))
        print("\n".join(difference))
        return 1 if difference else 0
    with open(page, "w") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
