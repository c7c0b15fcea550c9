#!/usr/bin/env python3
"""Runs many test programs in one machine of the lab and keeps what each gave; ctest's cases report from that.

  batch.py run BATCH RESULTS [--only REGEX]   starts machines until every test has a result (the fixture's test), unless
                                              `ahead` has them, or is about to
  batch.py ahead BATCH RESULTS                does that for the next `run`, while the rest of the tree is still built
  batch.py report RESULTS NAME                says what the test said, and ends as it ended (a test of ctest each)
  batch.py inside BATCH NAME...               in the machine: one line of JSON when a test starts, one when it ended

A line of BATCH: name, seconds it may take, command and its arguments, with tabs between; or an assignment for the
environment of all. A machine that dies takes the test that ran in it along: both are reported, and it runs once more, in
another machine, as do those after it. If that one dies as well, the test has failed. A machine in which another VMM, the
measure of a test, does not come to its end (UNFIT) is ended as if it had died.
"""
import argparse
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import ahead

HERE = os.path.dirname(os.path.abspath(__file__))
MAX_OUTPUT = 1 << 20
OUTPUT = "/tmp/lab-output"  # what a test leaves there, files only, comes back with its result
MAX_FILES = 8 << 20
UNFIT = "/tmp/lab-unfit"  # made by a test that failed for the machine's sake
# Machines in a row that die before a test of theirs has ended: then it is the lab that fails.
MAX_USELESS = 3
MAX_DEATHS = 2  # of machines, for one test
KERNELS = ("cloud", "generic", "current")
SKIPPED = 77  # as the tests' SKIP_RETURN_CODE says


def read_batch(path):
    """The tests, and what to add to the environment."""
    tests, environment = {}, {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            first, *more = line.rstrip("\n").split("\t")
            if more:
                tests[first] = (float(more[0]), more[1:])
            else:
                name, _, value = first.partition("=")
                environment[name] = value
    return tests, environment


def shortened(data):
    text = data.decode(errors="replace")
    if len(text) > MAX_OUTPUT:
        text = text[:MAX_OUTPUT // 2] + "\n[...]\n" + text[-MAX_OUTPUT // 2:]
    return text


def inside(batch, names):
    if os.environ.get("VMMHOST_LAB") != "1":
        sys.exit("batch: not in the lab (tests/lab/run starts it)")
    tests, _ = read_batch(batch)
    for name in names:
        seconds, command = tests[name]
        print(json.dumps({"name": name}), flush=True)
        shutil.rmtree(OUTPUT, ignore_errors=True)
        os.mkdir(OUTPUT)
        began = time.monotonic()
        with subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, start_new_session=True) as process:
            try:
                output = process.communicate(timeout=seconds)[0]
                code = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output = process.communicate()[0] + f"\nbatch: ended after {seconds:g} s\n".encode()
                code = 124
        if code < 0:
            output += f"\nbatch: ended by signal {-code}\n".encode()
            code = 128 - code
        if code and os.path.exists(UNFIT):
            sys.exit(shortened(output) + "batch: another VMM did not come to its end in this machine")
        files, left = files_left()
        if left:
            output += f"\nbatch: {left} in {OUTPUT} did not come back: it is no file, or there is too much\n".encode()
            code = code or 1
        print(json.dumps({"name": name, "code": code, "seconds": time.monotonic() - began,
                          "output": shortened(output), "files": files}), flush=True)


def files_left():
    """What a test left in OUTPUT, file name -> content; and the name of one that cannot be taken along, or None. With the
    result, and not when the machine ends: then a test that kills it takes nothing of those before it along."""
    files = {}
    size = 0
    for name in sorted(os.listdir(OUTPUT)):
        path = os.path.join(OUTPUT, name)
        size += os.path.getsize(path)
        if not os.path.isfile(path) or size > MAX_FILES:
            return files, name
        with open(path, "rb") as file:
            files[name] = base64.b64encode(file.read()).decode()
    return files, None


def result_path(results, name):
    return os.path.join(results, name + ".json")


def tell(record):
    word = {0: "passed", SKIPPED: "skipped"}.get(record["code"], "FAILED")
    print(f"{record['name']}: {word} after {record['seconds']:.1f} s", flush=True)


def keep(results, record):
    for name, content in record.pop("files", {}).items():
        folder = os.path.join(results, record["name"])
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(base64.b64decode(content))
    path = result_path(results, record["name"])
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(path + ".part", path)
    tell(record)


def one_machine(batch, results, names, deaths):
    """Runs them until the machine ends. What ended, and what the lab said. `deaths`: test name -> what was said when a
    machine died under it, of each that did."""
    ended = []
    running = None
    began = time.monotonic()
    # setpriv: a batch that is killed takes the machine with it.
    command = ["setpriv", "--pdeathsig", "TERM", "--", os.path.join(HERE, "run"), "--timings", "--", sys.executable, "-B",
               os.path.abspath(__file__), "inside", batch, *names]
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process:
            for line in process.stdout:
                record = json.loads(line)
                if "code" in record:
                    record["output"] = "".join(deaths.get(record["name"], [])) + record["output"]
                    keep(results, record)
                    ended.append(record["name"])
                    running = None
                else:
                    running = record["name"]
                    began = time.monotonic()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if running is not None:
        died = deaths.setdefault(running, [])
        died.append(f"batch: a machine ended while this test ran (exit code {process.returncode})\n{said}\n")
        print(f"{running}: the machine ended (exit code {process.returncode})", flush=True)
        if len(died) == MAX_DEATHS:
            keep(results, {"name": running, "code": 125, "seconds": time.monotonic() - began, "output": "".join(died)})
            ended.append(running)
    return ended, said


def unpack_kernels():
    """A kernel that is not to be had, as without a network, is told to the tests that boot it (lab_harness.py)."""
    missing = [name for name in KERNELS
               if subprocess.run([os.path.join(HERE, "kernels"), name], stdin=subprocess.DEVNULL,
                              check=False).returncode != 0]
    os.environ["VMMHOST_LAB_MISSING"] = " ".join(missing)


def run_machines(batch, results, left):
    """Until each of these tests has a result. What was said of the machines."""
    for name in os.listdir(results):
        path = os.path.join(results, name)
        if name.endswith(".json"):
            os.unlink(path)
        elif os.path.isdir(path):  # of files that a test left
            shutil.rmtree(path)
    useless = 0
    deaths, told = {}, []
    while left:
        ended, said = one_machine(batch, results, left, deaths)
        print(said, end="", flush=True)
        told.append(said)
        left = [name for name in left if name not in ended]
        useless = 0 if ended else useless + 1
        if useless == MAX_USELESS:
            sys.exit(f"batch: no machine came to run {', '.join(left)}")
    return "".join(told)


def chosen(batch, only):
    """The names of the tests to run; the batch's environment is this program's from here on."""
    tests, environment = read_batch(batch)
    os.environ.update(environment)
    return [name for name in tests if re.search(only, name)]


def run(batch, results, only):
    names = chosen(batch, only)
    with ahead.alone(results):
        said = ahead.take(results, ahead.stamp(batch, only))
        if said is None:
            unpack_kernels()
            run_machines(batch, results, names)
            return
    print("batch: run ahead")
    for name in names:
        with open(result_path(results, name), encoding="utf-8") as file:
            tell(json.load(file))
    print(said, end="")


def run_ahead(batch, results, only):
    names = chosen(batch, only)
    with ahead.alone(results):
        ahead.discard(results)
        unpack_kernels()
        before = ahead.stamp(batch, only)
        said = run_machines(batch, results, names)
        if ahead.stamp(batch, only) != before:
            sys.exit("batch: something was built meanwhile: nobody knows which of it the tests have seen")
        ahead.leave(results, before, said)


def report(results, name):
    try:
        with open(result_path(results, name), encoding="utf-8") as file:
            record = json.load(file)
    except FileNotFoundError:
        sys.exit(f"batch: {name} was not run")
    print(record["output"], end="")
    if record["code"] == 0 and re.search(r"^OK \(skipped=\d+\)$", record["output"], re.M):
        record["code"] = SKIPPED
    print(f"batch: {name} took {record['seconds']:.1f} s in the lab and ended with exit code {record['code']}")
    sys.exit(record["code"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("run", "ahead"):
        verb = verbs.add_parser(name)
        verb.add_argument("batch")
        verb.add_argument("results")
        verb.add_argument("--only", default=os.environ.get("VMMHOST_LAB_ONLY", ""), metavar="REGEX")
    verb = verbs.add_parser("report")
    verb.add_argument("results")
    verb.add_argument("name")
    verb = verbs.add_parser("inside")
    verb.add_argument("batch")
    verb.add_argument("names", nargs="+")
    options = parser.parse_args()
    if options.verb == "run":
        run(options.batch, options.results, options.only)
    elif options.verb == "ahead":
        run_ahead(options.batch, options.results, options.only)
    elif options.verb == "report":
        report(options.results, options.name)
    else:
        inside(options.batch, options.names)


if __name__ == "__main__":
    main()
