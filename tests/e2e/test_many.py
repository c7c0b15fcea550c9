"""Many VMs, one after another and at once, as root and as an ordinary user: all answer, and nothing is left."""
import os
import stat
import subprocess
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import (MAX_SUPERVISOR_PRIVATE, RELEASE, USER, OrdinaryUserTest, VmmhostTest, guest, private_bytes,
                     processes, read, wait_until)

IN_TURN = 200 if RELEASE else 40
AT_ONCE = 50 if RELEASE else 10
JOBS = 2
MEMORY = "16M"


def keys(uids):
    """How many keys (keyrings are keys) these users have."""
    lines = [line.replace(b":", b" ").split() for line in read("/proc/key-users").splitlines()]
    return sum(int(words[2].split(b"/")[0]) for words in lines if int(words[0]) in uids)


def owned_shared_memory(uids):
    """System V objects and files of /dev/shm of these users, but for those that tests of hostile workers lay as traps."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        lines = [line.split() for line in read(f"/proc/sysvipc/{kind}").decode().splitlines()]
        owner = lines[0].index("uid") if lines else 0
        found |= {(kind, words[0], words[1]) for words in lines[1:] if int(words[owner]) in uids}
    for name in os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []:
        try:
            if os.lstat(os.path.join("/dev/shm", name)).st_uid in uids and not name.startswith("vmmhost-hostile-"):
                found.add(("/dev/shm", name))
        except FileNotFoundError:
            pass
    return found


class Many:
    backend = "kvm"

    def setUp(self):
        super().setUp()
        self.assertTrue(read("/proc/key-users"), "the kernel tells who has keys")
        self.shared_before = owned_shared_memory({self.uid})  # of the machine's other programs

    def given(self, kernel):
        return ("--backend", self.backend, "--memory", MEMORY, "--kernel", guest(kernel))

    def in_parallel(self, function, items):
        with ThreadPoolExecutor(JOBS) as pool:
            return list(pool.map(function, items))

    def sockets(self):
        # Not by /proc/net/unix: they are bound through descriptors of their folders, and have no path there.
        return [os.path.join(where, name) for where, _, names in os.walk(self.folder) for name in names
                if stat.S_ISSOCK(os.lstat(os.path.join(where, name)).st_mode)]

    def assert_machine_is_clean(self, uids, keys_before):
        """Besides what every test looks at: what the kernel keeps for these users, and the runtime folder."""
        for place in ("run", "run/.uids", "state"):
            path = os.path.join(self.folder, place)
            names = os.listdir(path) if os.path.isdir(path) else []
            self.assertEqual([name for name in names if name != ".uids"], [], f"left in {place}")
        self.assertEqual(self.sockets(), [])
        self.assertNotIn(self.folder.encode(), read("/proc/self/mountinfo"))
        self.assertEqual(owned_shared_memory(uids) - self.shared_before, set())
        # The kernel collects keyrings a moment after their last process. An ordinary user has others meanwhile.
        most = 0 if self.own_uids and 0 not in uids else keys_before + AT_ONCE // 2
        wait_until(lambda: keys(uids) <= most, 20, "keyrings are gone")

    def test_two_hundred_one_after_another(self):
        before = keys({self.uid})

        def run(_):
            result = self.run_vmmhost("run", "--rm", "--json", *self.given("poweroff"))
            self.assertEqual((result.code, result.err), (0, ""))
            return result.json["name"]

        names = self.in_parallel(run, range(IN_TURN))
        self.assertEqual(len(set(names)), IN_TURN, "each has a name of its own")
        self.assertEqual(processes(self.folder), {})
        self.assert_machine_is_clean({self.uid}, before)

    def test_fifty_at_once(self):
        before = keys({self.uid})
        names = [f"vm{index:02}" for index in range(AT_ONCE)]
        self.in_parallel(lambda name: self.check("run", "--detach", "--name", name, *self.given("idle")), names)

        rows = self.check("ps", "--json").json
        self.assertEqual(sorted(row["name"] for row in rows), names)
        self.assertEqual({row["state"] for row in rows}, {"running"})
        self.assertEqual(self.check("ps").out.count(" running "), AT_ONCE)
        uids = {self.uid}
        for row in rows:
            uids.add(int(read(f"/proc/{row['workerPid']}/status").split(b"Uid:")[1].split()[0]))
        self.assertEqual(len(uids), 1 + AT_ONCE if self.own_uids else 1, "root's VMs have a user id each")
        self.assertEqual(len(self.sockets()), AT_ONCE, "each VM has a control socket, which is looked for at the end")
        self.assertGreaterEqual(len(processes(self.folder)), 2 * AT_ONCE, "as are supervisors and workers")
        if RELEASE:
            used = [private_bytes(row["supervisorPid"]) for row in rows]
            self.assertGreater(min(used), 0)
            self.assertLessEqual(max(used), MAX_SUPERVISOR_PRIVATE)
            print(f"\nprivate memory of a supervisor at most {max(used) >> 10} KiB")

        def pause_and_resume(name):
            self.check("pause", name)
            self.assertEqual(self.inspect(name)["state"], "paused")
            self.check("resume", name)
            return self.inspect(name)["state"]

        self.assertEqual(set(self.in_parallel(pause_and_resume, names)), {"running"})
        waiting = self.start("wait", *names)
        self.in_parallel(lambda name: self.check("stop", name), names)
        done = self.finish(waiting)
        self.assertEqual((done.code, done.out.count("stopped")), (143, AT_ONCE))
        self.check("rm", *names)
        self.assertEqual(self.check("ps", "-a", "--json").json, [])
        self.assert_machine_is_clean(uids - {0}, before)


class RootMany(Many, VmmhostTest):
    uid = 0
    own_uids = True

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        super().setUp()
        self.backend = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "qemu"


class UserMany(Many, OrdinaryUserTest):
    uid = USER if os.geteuid() == 0 else os.geteuid()
    own_uids = False
    # /dev/kvm as if it belonged to the ordinary user, in a mount namespace that ends with its first process.
    DEVICE = ('set -e; mount -t tmpfs -o mode=755 none "$1"; mknod -m 600 "$1/kvm" c "$2" "$3"; chown "$4" "$1/kvm"; '
              'mount --bind "$1/kvm" /dev/kvm; umount -l "$1"; echo ready; exec sleep infinity')

    def setUp(self):
        super().setUp()
        self.namespace = []
        if os.geteuid() == 0 and os.path.exists("/dev/kvm"):
            place = os.path.join(self.folder, "device")
            os.mkdir(place)
            number = os.stat("/dev/kvm").st_rdev
            holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "bash", "-c", self.DEVICE,
                                       "bash", place, str(os.major(number)), str(os.minor(number)), str(USER)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            self.background.append(holder)
            self.assertEqual(holder.stdout.readline(), "ready\n")
            self.namespace = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
        usable = bool(self.namespace) or os.access("/dev/kvm", os.R_OK | os.W_OK)
        self.backend = "kvm" if usable else "qemu"

    def command(self, *arguments):
        return [*self.namespace, *super().command(*arguments)]


if __name__ == "__main__":
    unittest.main()
