"""SIGKILL of worker, supervisor or client at random moments of random lives; whatever was under way, nothing is left.

The seed is printed. VMMHOST_FAULT_SEED=N plays the same again (the moments are times, so that they come about as exactly
as the machine allows), VMMHOST_FAULT_ROUNDS=N as many kills of it (100; 500 with VMMHOST_TEST_LONG=1),
VMMHOST_FAULT_ROUND=N that round alone (as often as VMMHOST_FAULT_ROUNDS says).
"""
import collections
import json
import os
import random
import signal
import subprocess
import time
import unittest

from fault_harness import (LONG, FaultTest, abandoned_leases, become_reaper, bury, descendants, descriptors, guest,
                           read, wait_until)

ROUNDS = int(os.environ.get("VMMHOST_FAULT_ROUNDS", "500" if LONG else "100"))
SEED = int(os.environ.get("VMMHOST_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
ONLY = os.environ.get("VMMHOST_FAULT_ROUND")
SECONDS = 500 if LONG else 60  # then the rounds are enough, and how many they were is told,
ENOUGH = 100           # but so many it takes to say anything, however slow the machine is
LIFE_SECONDS = 0.08    # within which the kill comes: starting takes about a third of it
GUESTS = ("loop",) * 5 + ("serial_echo",) * 4 + ("hello", "flood", "poweroff", "reset")
VERBS = ("pause", "resume", "reset", "shutdown", "stop", "inspect", "logs", "wait", "ps", "rm -f", "console")
KINDS = {"supervisor": "vmmhost-supervi", "worker": "vmmhost-worker-"}
# What a command may say of a VM that somebody kills: its outcome, an error with words, or that nothing is there.
CODES = {0, 1, 3, 125, 126, 127, 130, 143, -signal.SIGKILL}


class RandomKills(FaultTest):
    def setUp(self):
        become_reaper()
        super().setUp()
        self.killed = collections.Counter()
        self.ours = {self.neighbour["supervisorPid"], self.neighbour["workerPid"], self.neighbour_console.pid}

    def test_whatever_is_killed_whenever_nothing_is_left(self):
        print(f"\nVMMHOST_FAULT_SEED={SEED} VMMHOST_FAULT_ROUNDS={ROUNDS}", flush=True)
        began = time.monotonic()
        open_before = descriptors()
        number = killed = 0
        # A round whose guests have ended by themselves, or were ended, before there was anything to kill is none.
        while killed < min(ROUNDS, ENOUGH) or (killed < ROUNDS and time.monotonic() - began < SECONDS):
            killed += self.checked_round(number if ONLY is None else int(ONLY))
            number += 1
            if number % 50 == 0:
                self.assert_neighbour_well()
        elapsed = time.monotonic() - began
        print(f"{killed} killed ({dict(self.killed)}) in {number} rounds and {elapsed:.1f} s", flush=True)
        self.assertEqual(descriptors(), open_before)
        if killed >= ENOUGH and ONLY is None:
            self.assertEqual(set(self.killed), {"vmmhost", *KINDS.values()}, "each kind has had its turn")

    def checked_round(self, number):
        try:
            return self.play(number)
        except AssertionError as error:
            raise AssertionError(f"VMMHOST_FAULT_SEED={SEED} VMMHOST_FAULT_ROUND={number}: {error}") from error

    def play(self, number):
        """One round: VMs, verbs, and one kill. Returns how many processes were killed."""
        chance = random.Random(f"{SEED}.{number}")
        names = [f"r{number}-{index}" for index in range(chance.choice((1, 1, 2, 3)))]
        victim = chance.choice(("supervisor", "worker", "client"))
        script = sorted((chance.uniform(0, LIFE_SECONDS), chance.choice(VERBS), chance.choice(names))
                        for _ in range(chance.randrange(4)))
        kill_at = chance.uniform(0, LIFE_SECONDS)
        clients = [self.background_run(chance, name) for name in names]
        began = time.monotonic()
        commands = []
        for at, verb, name in script:
            if at > kill_at:
                break
            time.sleep(max(0, began + at - time.monotonic()))
            commands.append(self.quiet_command(*verb.split(), *([] if verb == "ps" else [name])))
        time.sleep(max(0, began + kill_at - time.monotonic()))
        pids = self.victims(victim, clients)
        killed = sum(self.kill(pid) for pid in pids)
        self.clean_up(names, clients, commands)
        return killed

    def kill(self, pid):
        name = read(f"/proc/{pid}/comm").strip().decode()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return 0  # it was quicker
        self.killed[name] += 1
        return 1

    def quiet_command(self, *arguments):
        return subprocess.Popen(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=self.environment, cwd=self.folder)

    def background_run(self, chance, name):
        flags = [flag for flag in ("--detach", "--rm") if chance.random() < 0.4]
        return self.quiet_command("run", "--backend", "fake", "--name", name, "--memory", "8M", "--kernel",
                                  guest(chance.choice(GUESTS)), *flags)

    def victims(self, kind, clients):
        """The process to kill: the first of its kind, or of whatever there is at this moment."""
        living = [client.pid for client in clients if client.poll() is None]
        below = [(pid, name) for pid, name in descendants("self") if pid not in self.ours]
        wanted = living if kind == "client" else [pid for pid, name in below if name == KINDS[kind]]
        return (wanted or [pid for pid, name in below if name in KINDS.values()] or living)[:1]

    def clean_up(self, names, clients, commands):
        """What goes on is ended in the ordinary way; then there is nothing."""
        self.check("ps", "-a", timeout=10)
        for name in names:
            path = os.path.join(self.folder, "state", name, "exit.json")
            if os.path.exists(path):
                with open(path) as file:
                    json.load(file)  # whole, whoever died while it was written

        def removed():
            """A supervisor may come to life after its name was removed, and ends with the next removal."""
            bury()
            for name in names:
                self.assertIn(self.run_vmmhost("rm", "-f", name, timeout=30).code, (0, 127), name)
            return all(process.poll() is not None for process in clients + commands) and not [
                pid for pid, _ in descendants("self") if pid not in self.ours]

        wait_until(removed, 20, "everything is removed")
        for process in clients + commands:
            self.assertIn(process.returncode, CODES, process.args)
        for name in names:
            self.assertIn(self.run_vmmhost("rm", "-f", name).code, (0, 127))
        for place in ("run", "state"):
            left = [name for name in os.listdir(os.path.join(self.folder, place)) if name in names]
            self.assertEqual(left, [], f"{place} entries left")
        # Leases are the machine's; those of other tests that run now are held, or are swept in a moment.
        wait_until(lambda: not abandoned_leases(), 10, "no user id lease is left that nobody holds")


if __name__ == "__main__":
    unittest.main()
