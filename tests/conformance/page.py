"""Makes docs/capabilities.md from the results of conformance runs, so that the page cannot tell otherwise than they do.

    page.py PAGE RESULTS.json...            writes the page
    page.py --check PAGE RESULTS.json...    compares the columns of which there are results; exit code 1 and the
                                            difference if the page is not what they make

    --elsewhere COLUMN      that another build than this looks at this one

Results are what run.py keeps. A column is a backend and where it ran. One without results (its machine lacks what it
needs, the lab was left out) keeps what the page says of it, and results of one that the page does not have (a machine
unlike that of CI) are not compared. A check says which those are, and ends with 77, for skipped, unless all of them are
looked at elsewhere: tests/skips-allowed does not name it, and so CI passes only if all are looked at. What abilities and
cases mean is told by the results; neither times nor facts of a machine are put into the page.
"""
import argparse
import difflib
import json
import os
import re
import sys

SKIPPED = 77
# Columns, from left to right. Others follow in the order of their names.
BACKENDS = ("kvm", "qemu", "cloudhv", "fake")
PLACES = ("emulating", "hardware", "hardware (lab)", "translating", "stand-in")
WORDS = {"passed": "yes", "failed": "FAILED", "notAdvertised": "refused", "needsAbsent": "not run"}
HEAD = """# Capabilities

Made from the results of `vmmhost conformance` by `tests/conformance/page.py`; the test `conformance.page` fails when
they differ. To make it anew, in a tree that is built:

    ctest --preset release -R '^conformance\\.page$'
    cmake --build --preset release --target conformance-page

A column is a backend and where it ran, for the same backend can do more on one machine than on another. `emulating`:
on a KVM that carries guests out instruction by instruction. `hardware`: on one that leaves them to the processor;
`(lab)` says that it is that of `tests/lab`, whose processors are themselves translated. `translating`: without KVM.
`stand-in`: a program of the test suite plays the part of what runs guests. `kvm` and `qemu` are described in the README,
`fake` is the test suite's own backend, which plays guests without running them.

A capability that a backend advertises is one that was seen to work; one that it does not advertise was seen to be
refused.
"""


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def table(first, backends, rows):
    return row([first, *backends]) + "|" + "---|" * (len(backends) + 1) + "\n" + "".join(row(cells) for cells in rows)


def column_of(backend):
    return ", ".join(filter(None, (backend["name"], backend.get("place"))))


def column_order(column):
    backend, _, place = column.partition(", ")
    return [(known.index(name) if name in known else len(known), name)
            for name, known in ((backend, BACKENDS), (place, PLACES))]


def read_results(path):
    """The column that one run makes, what it says (capability or case -> word), and what names mean (-> text)."""
    with open(path) as file:
        results = json.load(file)
    words, texts = {}, {}
    for ability in results["abilities"]:
        words["capability " + ability["name"]] = "no"
        texts["capability " + ability["name"]] = ability["text"]
    for name in results["backend"]["capabilities"]:
        words["capability " + name] = "yes"
    for case in results["cases"]:
        word = WORDS[case["result"]]
        observed = case.get("observed")
        if case["result"] == "passed" and observed in ("served", "refused"):
            word = observed if case["name"].startswith("fields.") or observed == "refused" else "yes"
        words[case["name"]] = word
        texts[case["name"]] = case.get("text", "")
    return column_of(results["backend"]), words, texts


def read_page(text):
    """What a page says: column -> (capability or case -> word)."""
    said = {}
    columns = []
    kind = ""
    for line in text.splitlines():
        if not line.startswith("| "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ("capability", "field", "case"):
            kind, columns = cells[0], cells[1:]
            continue
        key = re.sub(r"`", "", cells[0].split(":")[0])
        prefix = {"capability": "capability ", "field": "fields.", "case": ""}[kind]
        for column, word in zip(columns, cells[1:]):
            said.setdefault(column, {})[prefix + key] = word
    return said


def make_page(said, texts):
    columns = sorted(said, key=column_order)
    names = list(texts)  # in the order of the results
    for column in columns:
        names += [name for name in said[column] if name not in names]

    def of(kind, prefix, hidden=""):
        """A table of all whose names begin with `prefix`, which is shown unless it is `hidden`."""
        rows = []
        for name in filter(lambda name: name.startswith(prefix), names):
            text = texts.get(name)
            rows.append(["`" + name[len(hidden):] + "`" + (": " + text if text else ""),
                         *(said[column].get(name, "-") for column in columns)])
        return table(kind, columns, rows)

    text = HEAD
    text += "\n## What a backend advertises\n\n" + of("capability", "capability ", "capability ")
    text += ("\n## Fields of a configuration\n\nFields of `schemas/vm.capnp` that a backend may serve or not. What is "
             "not served is refused as `unsupported`, and\nthe field is named.\n\n") + of("field", "fields.", "fields.")
    text += ("\n## Behaviours\n\n`yes`: seen to be so. `refused`: the case needs a capability that the backend does "
             "not advertise, or a device that it\ndoes not have, and what it stands for was refused. `not run`: "
             "something besides the backend was missing.\n")
    areas = dict.fromkeys(name.split(".")[0] for name in names if not name.startswith(("capability ", "fields.")))
    for area in areas:
        text += "\n### " + area + "\n\n" + of("case", area + ".")
    return text


def read_all(paths):
    """Columns and texts of all results that are there."""
    found, texts = {}, {}
    for path in filter(os.path.exists, paths):
        column, words, meant = read_results(path)
        found[column] = words
        for name, text in meant.items():
            if texts.setdefault(name, text) != text:
                sys.exit(f"{path} says of {name} \"{text}\", another result \"{texts[name]}\": not of one build")
    if not found:
        sys.exit("there are no results: run the tests conformance.* first")
    return found, texts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--elsewhere", action="append", default=[])
    parser.add_argument("page")
    parser.add_argument("results", nargs="+")
    options = parser.parse_args()
    before = ""
    if os.path.exists(options.page):
        with open(options.page) as file:
            before = file.read()
    found, texts = read_all(options.results)
    kept = read_page(before)
    others = {column: f"no results of \"{column}\" here: what the page says of it" for column in kept
              if column not in found}
    if not options.check:
        for other in others.values():
            print(other + " stays")
        with open(options.page, "w") as file:
            file.write(make_page({**kept, **found}, texts))
        return 0
    others.update({column: f"the page has no \"{column}\": what its results say" for column in found
                   if column not in kept})
    for other in others.values():
        print(other + " is not compared")
    compared = {column: words for column, words in found.items() if column in kept}
    text = make_page({**kept, **compared}, texts)
    difference = list(difflib.unified_diff(before.splitlines(), text.splitlines(), options.page, "results", lineterm="",
                                           n=0))
    print("\n".join(difference))
    if difference or not compared:
        return 1
    return SKIPPED if set(others) - set(options.elsewhere) else 0


if __name__ == "__main__":
    sys.exit(main())
