"""Guests whose drivers break every rule, on a machine with every device that the kvm backend has. A VM may be ended with
a cause that is told; its worker never dies by a signal, and answers all the while."""
import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
from harness import VmmhostTest, guest, kvm_usable  # noqa: E402

MIB = 1 << 20
harness.MAX_WORKER_PRIVATE = 9 * MIB // 2  # with every device that there is
ANSWER_SECONDS = 1.0
LIFETIME_SECONDS = 240
# What a guest may bring upon itself.
CAUSES = {"powerOff", "reset", "tripleFault", "crash", "panic", "watchdog"}


@unittest.skipUnless(kvm_usable(), "no /dev/kvm here that this user may open")
class HostileGuests(VmmhostTest):
    def configuration(self, attack):
        def disk(name, **more):
            path = os.path.join(self.folder, name)
            with open(path, "wb") as file:
                file.truncate(8 * MIB)
            return {"file": path, **more}

        return {
            "boot": {"kernel": guest("hostile_devices"), "cmdline": attack},
            "memory": {"size": "64M"},
            "disks": [disk("written.img"), disk("read.img", readOnly=True)],
            "rng": {}, "watchdog": {}, "vsock": {}, "nics": [{}],
            "consoles": [{"kind": "serial"}, {"kind": "virtio"}, {"kind": "virtio"}],
            "balloon": {"targetSize": "8M", "freePageReporting": True},
        }

    def attack(self, attack):
        path = os.path.join(self.folder, "vm.json")
        with open(path, "w") as file:
            json.dump(self.configuration(attack), file)
        process = self.start("run", "--backend", "kvm", "--name", attack, "-f", path, "--json",
                             "--timeout", str(LIFETIME_SECONDS))
        slowest, answers = 0.0, 0
        while process.poll() is None:
            began = time.monotonic()
            result = self.run_vmmhost("inspect", attack, "--json", timeout=30)
            if result.code == 0 and result.json["state"] == "running":
                slowest = max(slowest, time.monotonic() - began)
                answers += 1
        result = self.finish(process, LIFETIME_SECONDS)
        outcome = json.loads(result.out)["outcome"]
        self.assertEqual(outcome["kind"], "guest", f"{attack}: {outcome}\n{result.err}")
        self.assertIn(outcome["cause"], CAUSES, outcome)
        log = self.check("logs", "--vmm", attack).out
        said = self.check("logs", attack).out
        self.assertNotIn("does not reset", said)
        self.assertNotIn("no such attack", said)
        if outcome["cause"] == "powerOff":
            self.assertIn("done", said)
        self.assertLess(slowest, ANSWER_SECONDS, f"{attack}: an answer took too long\n{log}")
        with open(os.path.join(self.folder, "read.img"), "rb") as file:
            self.assertEqual(file.read().count(b"\0"), 8 * MIB, "a disk that is only read was written")
        self.check("rm", attack)
        print(f"{attack}: {outcome['cause']}, {answers} answers, the slowest after {slowest * 1000:.0f} ms", flush=True)


def add(attack):
    setattr(HostileGuests, f"test_{attack}", lambda self: self.attack(attack))


for name in ("pci", "bars", "msix", "window", "chains", "storm", "resets", "moves", "noise", "lies"):
    add(name)

if __name__ == "__main__":
    unittest.main()
