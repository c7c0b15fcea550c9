"""A guest whose drivers break every rule, on a machine with every device that the kvm backend has. The VM may be ended
with a cause that is told; its worker never dies by a signal, and answers all the while.

Environment, besides the harness's: VMMHOST_HOSTILE_ATTACK (one of tests/guests/c/hostile_devices.c), and
VMMHOST_HOSTILE_MACHINE=wide for one with 8 of everything. With VMMHOST_TEST_LONG=1 what is left to chance is tried four
times as often.
"""
import json
import os
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
from harness import LONG, VmmhostTest, guest, kvm_usable  # noqa: E402

ATTACK = os.environ["VMMHOST_HOSTILE_ATTACK"]
MIB = 1 << 20
WIDE = os.environ.get("VMMHOST_HOSTILE_MACHINE", "") == "wide"
harness.MAX_WORKER_PRIVATE = harness.WIDE_WORKER_PRIVATE if WIDE else 9 * MIB // 2  # with every device that there is
# A tenth of a second is what it takes; a build without optimization on a busy machine takes 20 times that.
ANSWER_SECONDS = 20.0
# Between two questions: commands without a pause would keep a processor busy that tests beside this one need.
PAUSE_SECONDS = 0.02
LIFETIME_SECONDS = 240
# What a guest may bring upon itself.
CAUSES = {"powerOff", "reset", "tripleFault", "crash", "panic", "watchdog"}
# virtio's numbers of the devices that the configuration asks for: net, block, console, rng, balloon, vsock.
DEVICES = {1, 2, 3, 4, 5, 19}
NOT_BY_DEVICE = {"pci", "bars", "panics"}


def has_ended(process):
    """Whether it has within a moment."""
    try:
        process.wait(PAUSE_SECONDS)
        return True
    except subprocess.TimeoutExpired:
        return False


@unittest.skipUnless(kvm_usable(), "no /dev/kvm here that this user may open")
class HostileGuest(VmmhostTest):
    def configuration(self):
        def disk(name, **more):
            path = os.path.join(self.folder, name)
            with open(path, "wb") as file:
                file.truncate(8 * MIB)
            return {"file": path, **more}

        machine = {
            "boot": {"kernel": guest("hostile_devices"), "cmdline": ATTACK if LONG else ATTACK + " short"},
            "memory": {"size": "64M"},
        }
        if WIDE:
            return {**machine, **harness.wide_machine(self.folder)}
        return {
            **machine,
            "disks": [disk("written.img"), disk("read.img", readOnly=True)],
            "rng": {}, "watchdog": {}, "vsock": {}, "nics": [{}],
            "consoles": [{"kind": "serial"}, {"kind": "virtio"}, {"kind": "virtio"}],
            "balloon": {"targetSize": "8M", "freePageReporting": True},
        }

    def test_worker_lives_and_answers(self):
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            json.dump(self.configuration(), file)
        process = self.start("run", "--backend", "kvm", "--name", ATTACK, "-f", path, "--json",
                             "--timeout", str(LIFETIME_SECONDS))
        slowest, answers = 0.0, 0
        while not has_ended(process):
            began = time.monotonic()
            result = self.run_vmmhost("inspect", ATTACK, "--json", timeout=30)
            if result.code == 0 and result.json["state"] == "running":
                slowest = max(slowest, time.monotonic() - began)
                answers += 1
        result = self.finish(process, LIFETIME_SECONDS)
        outcome = json.loads(result.out)["outcome"]
        self.assertEqual(outcome["kind"], "guest", f"{outcome}\n{result.err}")
        self.assertIn(outcome["cause"], CAUSES, outcome)
        log = self.check("logs", "--vmm", ATTACK).out
        said = self.check("logs", ATTACK).out
        self.assertNotIn("does not reset", said)
        self.assertNotIn("no such attack", said)
        if outcome["cause"] == "powerOff":
            self.assertIn("done", said)
            attacked = {int(number, 16) for number in re.findall(r"^virtio ([0-9a-f]+)\r?$", said, re.M)}
            self.assertEqual(attacked, set() if ATTACK in NOT_BY_DEVICE else DEVICES)
        self.assertGreater(answers, 0, "nobody was asked while it ran")
        self.assertLess(slowest, ANSWER_SECONDS, f"an answer took too long\n{log}")
        with open(os.path.join(self.folder, "wide7.img" if WIDE else "read.img"), "rb") as file:
            self.assertEqual(file.read().count(b"\0"), 8 * MIB, "a disk that is only read was written")
        self.check("rm", ATTACK)
        print(f"{ATTACK}: {outcome['cause']}, {answers} answers, the slowest after {slowest * 1000:.0f} ms", flush=True)


if __name__ == "__main__":
    unittest.main()
