"""Runs `vmmhost conformance` on one backend for ctest: shows what is not as it should be, keeps the results as JSON.

    run.py VMMHOST OUTPUT.json ARGUMENT...      arguments as of `vmmhost conformance`, for example --backend qemu

Exits as `vmmhost conformance` does; with 77, for skipped, when it is kvm that is tested and there is no /dev/kvm to
open. Results of an earlier run are removed first: none are better than old ones.
"""
import json
import os
import subprocess
import sys


def main():
    vmmhost, output, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    os.makedirs(os.path.dirname(output), exist_ok=True)
    if os.path.exists(output):
        os.remove(output)
    done = subprocess.run([vmmhost, "conformance", "--json", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        print(done.stdout)
        no_kvm = "kvm" in arguments and not os.access("/dev/kvm", os.R_OK | os.W_OK)
        return 77 if done.returncode == 126 and no_kvm else done.returncode
    results = json.loads(done.stdout)
    for case in results["cases"]:
        if case["result"] == "failed":
            print(f"FAILED {case['name']}: {case['detail']}")
        elif case["result"] == "needsAbsent":
            print(f"not run {case['name']}: {case['detail']}")
    print(results["backend"]["name"], results["counts"])
    with open(output, "w") as file:
        file.write(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
