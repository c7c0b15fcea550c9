"""Systems that lack a part of the jail: a VM is refused with a message that names the part and what to do, unless the
part was given up by name. The parts are missing for real: taken away by namespaces, mounts and filters around the
command."""
import ctypes
import fcntl
import os
import re
import resource
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
from harness import USER, OrdinaryUserTest, VmmhostTest, guest  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x4000000, 0x8000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS = 38
ENOSYS, EOPNOTSUPP, EINVAL = 38, 95, 22
SYS_SECCOMP, SYS_KEYCTL, SYS_LANDLOCK_CREATE_RULESET, SYS_CLONE3 = 317, 250, 444, 435
CHROOT_TEXTS = ("this process runs in a chroot, where the kernel allows no user namespaces", "pivot_root")
ROOT = os.geteuid() == 0


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def become_user():
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def as_user(*prepare):
    """Becomes the ordinary user after the first of these steps; those after it are the user's."""
    def all_of_it():
        prepare[0]()
        become_user()
        for step in prepare[1:]:
            step()
    return all_of_it


def without_ids():
    """Whose ids mean nothing in a user namespace is not given one of its own (user_namespaces(7), EPERM)."""
    checked(LIBC.unshare(CLONE_NEWUSER))


def new_user_namespace():
    """With every id of this one, which takes somebody outside to write. Root's alone: where an ordinary user has made
    one, nothing is root's, and so no plugin is trusted."""
    reader, writer = os.pipe()
    target = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(writer)
        os.read(reader, 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{target}/{name}", "w") as file:
                file.write("0 0 4294967295")
        os._exit(0)
    checked(LIBC.unshare(CLONE_NEWUSER))
    os.write(writer, b"g")
    _, status = os.waitpid(helper, 0)
    os.close(reader)
    os.close(writer)
    if status != 0:
        raise RuntimeError("the id maps cannot be written")


def limit_namespaces(*kinds):
    def prepare():
        new_user_namespace()
        for kind in kinds:
            with open(f"/proc/sys/user/max_{kind}_namespaces", "w") as file:
                file.write("0")
    return prepare


def own_mounts():
    checked(LIBC.unshare(CLONE_NEWNS))
    checked(LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))


def failing_call(number, errno):
    """Under a filter by which one system call fails, as on a kernel without it."""
    def prepare():
        program = b"".join(struct.pack("HBBI", *line) for line in (
            (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno), (0x06, 0, 0, 0x7fff0000)))
        buffer = ctypes.create_string_buffer(program)
        head = struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
        if not ROOT:
            checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        checked(LIBC.syscall(SYS_SECCOMP, 1, 0, head))
    return prepare


class Refusals:
    def attempt(self, prepare, *arguments):
        return self.run_vmmhost("run", "--backend", "qemu", "--rm", "--memory", "64M", *arguments, "--kernel",
                                guest("hello"), preexec_fn=prepare)

    def refused(self, prepare, *texts, arguments=()):
        result = self.attempt(prepare, *arguments)
        self.assertEqual(result.code, 126, result.out + result.err)
        for text in texts:
            self.assertIn(text, result.err)
        return result

    def works(self, prepare, *arguments):
        result = self.attempt(prepare, *arguments)
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("hello from the guest", result.out)

    def diagnosed(self, prepare, name, *texts):
        """What doctor says of a check, and that it says so as a problem."""
        result = self.run_vmmhost("doctor", "--json", preexec_fn=prepare)
        self.assertEqual(result.code, 1, result.out + result.err)
        self.assertFalse(result.json["ready"])
        found = [check for check in result.json["checks"] if check["name"] == name]
        self.assertEqual([check["status"] for check in found], ["problem"], result.out)
        for text in texts:
            self.assertIn(text, found[0]["detail"] + "\n" + found[0]["fix"])

    def agrees(self, prepare, expected=None):
        """Doctor has tried each backend as a whole: what it says of a guest there is what comes of one."""
        told = self.run_vmmhost("doctor", "--json", preexec_fn=prepare)
        self.assertIn(told.code, (0, 1), told.out + told.err)
        checks = {check["name"]: check for check in told.json["checks"]}
        self.assertEqual(told.json["ready"], all(check["status"] != "problem" for check in checks.values()))
        self.assertEqual(told.code, 0 if told.json["ready"] else 1)
        tried = [name for name in ("kvm", "qemu") if checks[f"backend {name}"]["status"] == "ok"]
        self.assertTrue(tried, told.out)
        for backend in tried:
            result = self.run_vmmhost("run", "--backend", backend, "--rm", "--memory", "32M", "--kernel",
                                      guest("poweroff"), preexec_fn=prepare)
            check = checks[f"guest on {backend}"]
            self.assertEqual(check["status"], "ok" if result.code == 0 else "problem", f"{check}\n{result.err}")
            if result.code != 0:  # in the same words, but for the numbers of processes
                words = re.sub(r"\d+", "N", check["detail"])[:60]
                self.assertIn(words, re.sub(r"\d+", "N", result.err))
            if expected is not None:
                self.assertEqual(result.code == 0, expected, result.err)

    def chroot(self, name, is_mount):
        """With another root folder that holds the same as this one: a mount of it, or a folder of mounts."""
        inner = os.path.join(self.folder, name)
        os.mkdir(inner, 0o755)
        folders = [""] if is_mount else []
        for entry in os.scandir("/") if not is_mount else ():
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), os.path.join(inner, entry.name))
            elif entry.is_dir():
                os.mkdir(os.path.join(inner, entry.name), 0o755)
                folders.append(entry.name)

        def prepare():
            own_mounts()
            for folder in folders:
                checked(LIBC.mount(os.path.join("/", folder).encode(), os.path.join(inner, folder).encode(), None,
                                   MS_BIND | MS_REC, None))
            os.chroot(inner)
            os.chdir(self.folder)
        return prepare


class MissingParts(Refusals, VmmhostTest):
    @unittest.skipUnless(ROOT, "takes root")
    def test_no_user_namespaces(self):
        off = limit_namespaces("user")
        self.refused(off, "user namespace", "user.max_user_namespaces", "sysctl")
        self.diagnosed(off, "user-namespaces", "user.max_user_namespaces is 0",
                       "sudo sysctl user.max_user_namespaces=15000")

    @unittest.skipUnless(ROOT, "takes root")
    def test_chroot_is_named(self):
        """In a changed root nobody may make a user namespace (clone(2), EPERM)."""
        for name, is_mount in (("mount", True), ("folder", False)):
            with self.subTest(name):
                changed = self.chroot(name, is_mount)
                self.assertNotIn("switched o", self.refused(changed, "user namespace", *CHROOT_TEXTS).err)
                self.diagnosed(changed, "user-namespaces", *CHROOT_TEXTS)

    @unittest.skipUnless(ROOT, "takes root")
    def test_without_user_namespace(self):
        self.works(limit_namespaces("user"), "--without", "user-namespace")
        info = self.detached("bare", "qemu", "--without", "user-namespace")
        pid = info["workerPid"]
        with open(f"/proc/{pid}/status") as file:
            status = file.read()
        # What is given up is that part alone.
        self.assertEqual(os.readlink(f"/proc/{pid}/ns/user"), os.readlink("/proc/self/ns/user"))
        for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/{name}"), os.readlink(f"/proc/self/ns/{name}"), name)
        for line in ("CapBnd:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            self.assertIn(line, status)
        self.assertNotIn("Uid:\t0", status)
        self.assertFalse([line for line in info["jail"] if line.startswith("namespaces") and " user" in line])
        self.check("rm", "--force", "bare")

    @unittest.skipUnless(ROOT, "takes root")
    def test_other_namespace_that_may_not_be_made(self):
        for kind in ("net", "pid"):
            self.refused(limit_namespaces(kind), f"user.max_{kind}_namespaces is 0")
        self.works(limit_namespaces("net"), "--without", "net-namespace")

    def test_no_landlock(self):
        for errno in (ENOSYS, EOPNOTSUPP):
            off = failing_call(SYS_LANDLOCK_CREATE_RULESET, errno)
            self.refused(off, "Landlock", "--without landlock")
            self.diagnosed(off, "landlock", "--without landlock")
        self.works(off, "--without", "landlock")

    def test_no_seccomp(self):
        """Not to be given up."""
        off = failing_call(SYS_SECCOMP, ENOSYS)
        result = self.refused(off, "seccomp")
        self.assertNotIn("--without", result.err)
        result = self.attempt(off, "--without", "seccomp")
        self.assertEqual(result.code, 125, result.err)
        self.assertIn("no such part", result.err)

    @unittest.skipUnless(ROOT, "takes root")
    def test_no_seccomp_is_diagnosed(self):
        empty = os.path.join(self.folder, "empty")
        os.mkdir(empty)

        def hidden():
            own_mounts()
            checked(LIBC.mount(empty.encode(), b"/proc/sys/kernel/seccomp", None, MS_BIND, None))
        self.diagnosed(hidden, "seccomp", "CONFIG_SECCOMP_FILTER")

    def test_no_session_keyring(self):
        off = failing_call(SYS_KEYCTL, ENOSYS)
        self.refused(off, "keyring", "--without session-keyring")
        self.works(off, "--without", "session-keyring")

    @unittest.skipUnless(ROOT, "takes root")
    def test_limit_of_nested_namespaces_cannot_be_set(self):
        def read_only():
            own_mounts()
            checked(LIBC.mount(b"/proc/sys", b"/proc/sys", None, MS_BIND, None))
            checked(LIBC.mount(None, b"/proc/sys", None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
        self.refused(read_only, "--without nested-namespace-limit")
        # A /proc below which something is mounted cannot be had a second time, so that this takes a worker without one.
        with open(os.path.join(self.folder, "vm.json"), "w") as file:
            file.write('{"boot":{"kernel":"vm.json"},"platform":{"options":['
                       '{"name":"attack","value":"counters-random"},{"name":"moment","value":"start"}]}}')
        result = self.run_vmmhost("run", "--backend", "hostile", "--rm", "--json", "-f", "vm.json", "--without",
                                  "nested-namespace-limit", preexec_fn=read_only,
                                  environment={"VMMHOST_PLUGIN_PATH": os.environ["VMMHOST_HOSTILE_PLUGINS"]})
        self.assertEqual(result.code, 0, result.out + result.err)
        self.assertIn("attack counters-random: succeeded", result.out)

    @unittest.skipUnless(ROOT, "takes root")
    def test_no_control_groups_is_told_and_no_refusal(self):
        def none():
            own_mounts()
            checked(LIBC.mount(b"none", b"/sys/fs/cgroup", b"tmpfs", MS_RDONLY, None))
        self.works(none)
        self.check("run", "--backend", "qemu", "--name", "unlimited", "--detach", "--memory", "64M", "--kernel",
                   guest("loop"), preexec_fn=none)
        told = [line for line in self.inspect("unlimited")["jail"] if "control group" in line]
        self.assertEqual(len(told), 1)
        self.assertIn("NOT limited", told[0])
        self.assertIn("not limited by a control group", self.check("logs", "--vmm", "unlimited").out)
        self.check("rm", "--force", "unlimited")
        doctor = self.run_vmmhost("doctor", "--json", preexec_fn=none).json
        self.assertEqual([c["status"] for c in doctor["checks"] if c["name"] == "cgroups"], ["warning"])
        self.assertTrue(doctor["ready"], doctor)

    def test_doctor_tries_the_whole(self):
        self.agrees(None, expected=True)

    @unittest.skipUnless(ROOT, "takes root")
    def test_doctor_tries_the_whole_where_parts_of_proc_are_masked(self):
        """As containers have it: parts that cannot be written, others that are hidden, or all of it read-only."""
        def container():
            own_mounts()
            there = os.listdir("/proc")
            for name in {"bus", "fs", "irq", "sys", "sysrq-trigger"}.intersection(there):
                path = f"/proc/{name}".encode()
                checked(LIBC.mount(path, path, None, MS_BIND, None))
                checked(LIBC.mount(None, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
            for name in {"kcore", "keys", "timer_list"}.intersection(there):
                checked(LIBC.mount(b"/dev/null", f"/proc/{name}".encode(), None, MS_BIND, None))

        def read_only():
            own_mounts()
            checked(LIBC.mount(b"/proc", b"/proc", None, MS_BIND | MS_REC, None))
            checked(LIBC.mount(None, b"/proc", None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
        for what, prepare in (("as a container", container), ("read-only", read_only)):
            with self.subTest(what):
                self.agrees(prepare, expected=False)

    @unittest.skipUnless(ROOT, "takes root")
    def test_doctor_tries_the_whole_in_a_chroot(self):
        self.agrees(self.chroot("root", is_mount=True), expected=False)

    @unittest.skipUnless(ROOT, "takes root")
    def test_doctor_tries_the_whole_in_a_container_without_user_namespaces(self):
        """As docker makes one: with namespaces of its own, in which no user namespace comes to be, by a limit or by a
        filter that knows no clone3."""
        def namespaces():
            checked(LIBC.unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET))
            own_mounts()

        def limited():
            limit_namespaces("user")()
            namespaces()

        def filtered():
            namespaces()
            failing_call(SYS_CLONE3, ENOSYS)()
        for what, prepare in (("limited", limited), ("filtered", filtered)):
            with self.subTest(what):
                self.agrees(prepare, expected=False)
        self.diagnosed(limited, "user-namespaces", "user.max_user_namespaces is 0")

    def test_doctor_tries_the_whole_under_limits(self):
        def limited(limit, value):
            return lambda: resource.setrlimit(limit, (value, value))
        for limit, value, expected in ((resource.RLIMIT_CORE, 0, True), (resource.RLIMIT_NOFILE, 100, False),
                                       (resource.RLIMIT_DATA, 20 << 20, False), (resource.RLIMIT_AS, 80 << 20, False)):
            with self.subTest(f"limit {limit} of {value}"):
                self.agrees(limited(limit, value), expected)


@unittest.skipUnless(ROOT, "the tests of root do it for ordinary users")
class MissingPartsOfAUser(Refusals, OrdinaryUserTest):
    """The same for an ordinary user, with what root has taken away."""

    def command(self, *arguments):
        return VmmhostTest.command(self, *arguments)  # becomes the user after `prepare`

    def test_no_user_namespaces(self):
        off = as_user(limit_namespaces("user"))
        self.refused(off, "user namespace", "user.max_user_namespaces", "sysctl")
        self.diagnosed(off, "user-namespaces", "sudo sysctl user.max_user_namespaces=15000")
        self.refused(off, "by root only", arguments=("--without", "user-namespace"))

    def test_user_namespaces_switched_off(self):
        """By Debian's switch, which other kernels do not have: here a file in its place, and a refusal of the kernel."""
        switches = os.path.join(self.folder, "switches")
        for name, content in (("unprivileged_userns_clone", b"0\n"), ("cap_last_cap", None),
                              ("seccomp/actions_avail", None)):
            path = os.path.join(switches, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(harness.read("/proc/sys/kernel/" + name) if content is None else content)

        def hide():
            own_mounts()
            checked(LIBC.mount(switches.encode(), b"/proc/sys/kernel", None, MS_BIND, None))
        off = as_user(hide, without_ids)
        self.refused(off, "user namespaces are switched off here", "vmmhost doctor")
        self.diagnosed(off, "user-namespaces", "sudo sysctl kernel.unprivileged_userns_clone=1")

    def test_user_namespaces_refused_for_another_reason(self):
        refused = as_user(own_mounts, without_ids)
        result = self.refused(refused, "not switched off, but refused to this process", "vmmhost doctor")
        self.assertNotIn("runs in a chroot", result.err)
        self.diagnosed(refused, "user-namespaces", "not switched off, but refused", "seccomp", "chroot")

    def test_chroot_is_named(self):
        changed = as_user(self.chroot("root", is_mount=False))
        self.refused(changed, *CHROOT_TEXTS)
        self.diagnosed(changed, "user-namespaces", *CHROOT_TEXTS)


class UserIds(VmmhostTest):
    @unittest.skipUnless(ROOT, "only root's VMs have user ids of their own")
    def test_are_unique_on_the_machine_whatever_the_runtime_folder(self):
        other = os.path.join(self.folder, "run", ".other")
        os.mkdir(other, 0o700)
        uids = set()
        for environment in ({}, {"VMMHOST_RUNTIME_DIR": other}):
            name = f"vm{len(uids)}"
            self.check("run", "--backend", "qemu", "--name", name, "--detach", "--memory", "64M", "--kernel",
                       guest("loop"), environment=environment)
            info = self.check("inspect", name, "--json", environment=environment).json
            with open(f"/proc/{info['workerPid']}/status") as file:
                uid = int(file.read().split("Uid:\t")[1].split()[0])
            uids.add(uid)
            lease = f"/run/vmmhost/.uids/{uid - 0x76480000}"
            with open(lease) as file, self.assertRaises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.assertEqual(len(uids), 2)
        self.check("rm", "--force", "vm0")
        self.check("rm", "--force", "vm1", environment={"VMMHOST_RUNTIME_DIR": other})
        for uid in uids:
            self.assertFalse(os.path.exists(f"/run/vmmhost/.uids/{uid - 0x76480000}"))


if __name__ == "__main__":
    unittest.main()
