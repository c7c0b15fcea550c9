"""Runs `vmmhost conformance` on one backend for ctest: shows what is not as it should be, keeps the results as JSON.

    run.py [--place WORDS] VMMHOST OUTPUT.json ARGUMENT...

ARGUMENTs are those of `vmmhost conformance`, for example --backend qemu. What is kept says where it ran, as WORDS if they
are given; in the lab (tests/lab) that is said as well.

Exits as `vmmhost conformance` does; with 77, for skipped, when it is kvm that is tested and there is no /dev/kvm to
open, and in the lab when the kernel is not to be had. Results of an earlier run are removed first: none are better than
old ones.
"""
import json
import os
import subprocess
import sys

SKIPPED = 77
IN_LAB = os.environ.get("VMMHOST_LAB") == "1"


def main():
    arguments = sys.argv[1:]
    place = None
    if arguments[0] == "--place":
        place = arguments[1]
        del arguments[:2]
    vmmhost, output, *arguments = arguments
    os.makedirs(os.path.dirname(output), exist_ok=True)
    if os.path.exists(output):
        os.remove(output)
    if IN_LAB and "cloud" in os.environ.get("VMMHOST_LAB_MISSING", "").split():
        print("skipped: kernel cloud is not to be had here: lab.machine says why")
        return SKIPPED
    done = subprocess.run([vmmhost, "conformance", "--json", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        print(done.stdout)
        no_kvm = "kvm" in arguments and not os.access("/dev/kvm", os.R_OK | os.W_OK)
        return SKIPPED if done.returncode == 126 and no_kvm else done.returncode
    results = json.loads(done.stdout)
    for case in results["cases"]:
        if case["result"] == "failed":
            print(f"FAILED {case['name']}: {case['detail']}")
        elif case["result"] == "needsAbsent":
            print(f"not run {case['name']}: {case['detail']}")
    backend = results["backend"]
    backend["place"] = (place or backend["place"]) + (" (lab)" if IN_LAB else "")
    print(f"{backend['name']}, {backend['place']}: {results['counts']}")
    with open(output, "w") as file:
        json.dump(results, file)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
