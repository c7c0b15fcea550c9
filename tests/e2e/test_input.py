"""Bad input: each has an error of its own that names it, the right exit code, and leaves nothing behind.

A case is one line: what is wrong, the exit code, what the error has to name, what was given.
"""
import os
import resource
import socket
import subprocess
import unittest

import harness
from harness import GUEST_KIT, OrdinaryUserTest, backends, guest
from kernels import EM_AARCH64, EM_ARM, MIB, file_header, kernel
from refusals import Refusals

BIG = 1 << 40


class BackendInput:
    """What a backend and its worker look at: once for each of them."""
    backend = ""

    def setUp(self):
        if self.backend not in backends():
            self.skipTest(f"backend {self.backend} cannot be had here")
        super().setUp()

    def test_kernel_files(self):
        sound = kernel()
        hello = harness.read(guest("hello"))
        cases = [
            ("other processor, 64 bits", "machine 183", file_header(EM_AARCH64) + bytes(4096)),
            ("other processor, 32 bits", "machine 40", file_header(EM_ARM, bits=32) + bytes(4096)),
            ("big endian", ("ELF",), sound[:5] + b"\2" + sound[6:]),
            ("text", "ELF", b"this is no kernel\n" * 100),
            ("no executable", "segment" if self.backend == "qemu" else "type 4", file_header(kind=4) + bytes(4096)),
            ("overlapping segments", "overlap", kernel([(MIB, 16, 4096), (MIB + 2048, 16, 4096)])),
            ("address overflows", "segment 2", kernel([(MIB, 16, 4096), ((1 << 64) - 4096, 16, 8192)])),
            ("size overflows", "segment 1", kernel([(MIB, 16, (1 << 64) - 16)])),
            ("place in the file overflows", "segment 1", kernel([(MIB, 4096, 4096, (1 << 64) - 4096)])),
            ("more in the file than in memory", "segment 1", kernel([(MIB, 8192, 4096)])),
            ("outside memory", ("segment 1", "64 MiB"), kernel([(128 * MIB, 16, 4096)], entry=128 * MIB)),
            ("larger than memory", ("segment 1", "64 MiB"), kernel([(MIB, 16, BIG)])),
            ("in the low megabyte", ("segment 1", "1 MiB"), kernel([(0x7000, 16, 4096)], entry=0x7000)),
            ("entry outside the segments", "entry point", kernel(entry=32 * MIB)),
            ("no entry", "XEN_ELFNOTE_PHYS32_ENTRY", kernel([(2 * MIB, 16, 4096)], note=False)),
            ("no segments", "segment", kernel([])),
            ("65535 program headers", "65535 program headers", kernel(headers=65535) + bytes(65536 * 56)),
            ("65535 program headers, not there", "65535 program headers", kernel(headers=65535)),
        ]
        cases += [(f"cut to {length} bytes", (), hello[:length]) for length in (1, 4, 15, 16, 63, 64, 100, 200, 4200)]
        for what, names, content in cases:
            path = self.file("kernel", content)
            names = (names,) if isinstance(names, str) else names
            self.refuse(what, 125, ("boot.kernel: " + path, *names), *self.run_flags(kernel_file=path))
        path = self.file("sparse", size=BIG)
        self.refuse("1 TiB of nothing", 125, ("boot.kernel: " + path,), *self.run_flags(kernel_file=path))
        path = self.file("sparse", hello, size=BIG)
        if self.backend == "qemu":
            self.refuse("1 TiB behind a kernel", 125, ("boot.kernel: " + path, str(BIG)),
                        *self.run_flags(kernel_file=path))

    def test_kernel_in_the_device_gap(self):
        path = self.file("kernel", kernel([(0xfee00000, 16, 4096)], entry=0xfee00000))
        self.refuse("much memory", 125, ("boot.kernel: " + path, "segment 1"),
                    *self.run_flags(kernel_file=path, memory="6G"))
        self.refuse("little memory", 125, ("boot.kernel: " + path, "segment 1"), *self.run_flags(kernel_file=path))

    def test_bzimage_cut_short(self):
        image = harness.read(os.path.join(GUEST_KIT, "vmlinuz"))
        self.assertGreater(len(image), 1 << 20)
        for length in (600, 1024, 40000, len(image) // 2):
            path = self.file("vmlinuz", image[:length])
            self.refuse(f"{length} bytes", 125, "boot.kernel: " + path, *self.run_flags(kernel_file=path))

    def test_initrd(self):
        for size in (64 << 20, 128 << 20, BIG):
            path = self.file("initrd", size=size)
            self.refuse(f"{size} bytes", 125, ("boot.initrd: " + path, str(size)), *self.run_flags("--initrd", path))

    def test_disk_without_whole_sectors(self):
        """The host's rule, so that no backend rounds for itself; and the file stays as it is."""
        for size in (1, 511, 513, MIB + 1):
            disk = self.file("disk", size=size)
            for given in (disk, disk + ",ro"):
                self.refuse(f"{size} bytes", 125, ("disks[0]: " + disk, f"{size} bytes", "512", "truncate -s"),
                            *self.run_flags("--disk", given))
            self.assertEqual(os.path.getsize(disk), size)

    def test_limits_of_the_backend(self):
        self.refuse("little memory", 125, (f"backend {self.backend}", "memory.size", "1048576"),
                    *self.run_flags(memory="1M"))

    def test_fields_not_served(self):
        for fields, name in (*self.more_not_served,
                             ('"watchdog":{"action":"pause"}', "watchdog"),
                             ('"shares":[{"tag":"t","directory":"/"}]', "shares"),
                             ('"platform":{"machine":"pc"}', "platform.machine"),
                             ('"cpus":{"max":4}', "cpus.max"),
                             ('"platform":{"options":[{"name":"x\\n","value":"y"}]}', "platform.options[0].name"),
                             ('"platform":{"options":[{"name":"x","value":"y"}]}', "platform.options")):
            path = self.file("vm.json", "{" + fields + "}")
            self.refuse(fields, 125, name, *self.run_flags("-f", path))


class KvmInput(BackendInput, Refusals):
    backend = "kvm"
    more_not_served = (('"consoles":[{"kind":"serial"},{"kind":"serial"}]', "consoles[1].kind"),)


class QemuInput(BackendInput, Refusals):
    backend = "qemu"
    more_not_served = (('"vsock":{}', "vsock"), ('"consoles":[{},{},{},{},{}]', "consoles[4].kind"))

    def test_disks(self):
        disk, other = self.file("disk", size=MIB), self.file("other", size=MIB)
        empty = self.file("empty")
        link = os.path.join(self.folder, "link")
        os.link(disk, link)
        for what, names, *values in (
                ("not there", "disks[0]: /nonexistent", "/nonexistent"),
                ("second not there", "disks[1]: /nonexistent", disk, "/nonexistent"),
                ("folder", ("disks[0]: " + self.folder, "folder"), self.folder),
                ("device", ("disks[0]: /dev/zero", "character device"), "/dev/zero"),
                ("empty", ("disks[0]: " + empty, "empty"), empty),
                ("twice", ("disks[1]: " + disk, "same file as disks[0]"), disk, disk),
                ("twice, read once", ("disks[2]: " + disk, "same file as disks[0]"), disk + ",ro", other, disk),
                ("twice, by another name", ("disks[1]: " + link, "same file as disks[0]"), disk, link),
                ("unknown option", ("--disk", "bogus"), disk + ",bogus"),
                ("empty option", "--disk", disk + ","),
                ("option alone", ("--disk", ",ro"), ",ro"),
                ("nothing", "--disk", "")):
            code = 127 if "not there" in what else 125
            self.refuse(what, code, names, *self.run_flags(*(f"--disk={value}" for value in values)))

    def test_block_device(self):
        image = self.file("image", size=MIB)
        done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"no loop device can be had: {done.stderr.strip()}")
        device = done.stdout.strip()
        try:
            self.refuse("kernel", 125, ("boot.kernel: " + device, "block device"), *self.run_flags(kernel_file=device))
            self.refuse("disk", 125, ("disks[0].file: " + device, "block device"), *self.run_flags("--disk", device))
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)

    def test_disk_in_use(self):
        disk = self.file("disk", size=MIB)
        for held, wanted in ((disk, disk), (disk, disk + ",ro"), (disk + ",ro", disk)):
            self.detached("holder", "qemu", "--disk", held)
            for _ in range(2):
                self.check_error(self.run_vmmhost(*self.run_flags("--disk", wanted)), 125,
                                 ("disks[0]: " + disk, "in use by another VM"))
            self.check_json_error(self.run_vmmhost(*self.run_flags("--disk", wanted, "--json")), 125, disk)
            self.check("rm", "-f", "holder")
        self.assertEqual(self.run_vmmhost(*self.run_flags("--disk", disk)).code, 0, "free again")


class Input(Refusals):
    backend = backends()[0]

    def test_kernel_paths(self):
        fifo, listener = os.path.join(self.folder, "fifo"), os.path.join(self.folder, "socket")
        os.mkfifo(fifo)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(listener)
            for field, flags in (("boot.kernel", ("--kernel",)),
                                 ("boot.initrd", ("--kernel", guest("poweroff"), "--initrd"))):
                long, empty = "/no/such/" + "/".join(["x" * 200] * 4), self.file("empty")
                for what, code, names, path in (
                        ("missing", 127, "/no/such file", "/no/such file"), ("missing, long", 127, long, long),
                        ("shown without escapes", 127, "/no\\u202e", "/no\u202e"),
                        ("name too long for a file", 125, "/" + "x" * 300, "/" + "x" * 1000),
                        ("path too long", 125, ("5001", "4095"), "/" + "x" * 5000),
                        ("control character", 125, "/a\\x1b[31m\\n", "/a\x1b[31m\n"),
                        ("below a file", 127, empty + "/x", empty + "/x"), ("empty file", 125, (empty, "empty"), empty),
                        ("folder", 125, (self.folder, "folder"), self.folder), ("FIFO", 125, (fifo, "FIFO"), fifo),
                        ("socket", 125, (listener, "socket"), listener),
                        ("endless device", 125, ("/dev/zero", "character device"), "/dev/zero")):
                    names = (names,) if isinstance(names, str) else names
                    self.refuse(f"{field} {what}", code, (field, *names), "run", "--backend", self.backend,
                                "--memory", "64M", *flags, path)
                self.refuse(f"{field} not UTF-8", 125, ("--" + field[5:], "/\\xff"), "run", "--backend", self.backend,
                            *flags, "/\udcff")
        self.refuse("no kernel", 125, ("boot", "kernel"), "run", "--backend", self.backend)
        for flag in ("--kernel", "--initrd"):
            self.refuse(f"empty {flag}", 125, flag, *self.run_flags()[:4], f"{flag}=")
        path = self.file("relative", b"x" * 100)
        self.refuse("relative path", 125, "boot.kernel: relative", *self.run_flags(kernel_file="relative"))
        self.assertTrue(os.path.exists(path))

    def test_command_line(self):
        self.refuse("too long", 125, ("boot.cmdline", "2048", "2047"), *self.run_flags("--cmdline", "x" * 2048))
        self.refuse("with a newline", 125, ("boot.cmdline", "a\\nb"), *self.run_flags("--cmdline", "a\nb"))
        self.refuse("not UTF-8", 125, ("--cmdline", "\\xff"), *self.run_flags("--cmdline", "a\udcffb"))
        path = self.file("vm.json", '{"boot":{"cmdline":"a\\u0000b"}}')
        self.refuse("with NUL", 125, (path, "boot.cmdline", "NUL"), *self.run_flags("-f", path))

    def test_numbers(self):
        for value in ("0", "255", "10000", "4294967295"):
            self.refuse(f"{value} CPUs", 125, ("cpus.count", value, "1 to 254"), *self.run_flags(f"--cpus={value}"))
        for value in ("-1", "1.5", "two", "", "0x10", "1e3", "+1", " 1", "4294967296", "9" * 1000):
            self.refuse(f"{value!r} CPUs", 125, ("--cpus", value[:60]), *self.run_flags(f"--cpus={value}"))
        for value, found in (("0", "0"), ("1", "1"), ("512", "write 512M"), ("10T", str(10 << 40)),
                             ("2097153", "2097153")):
            self.refuse(f"{value} of memory", 125, ("memory.size", found),
                        *self.run_flags(f"--memory={value}", memory=""))
        for value in ("512X", "512MBB", "1.5G", "-512M", "M", "", "lots", "0x200M", "18446744073709551616",
                      "18014398509481984K", "99999999999999999999T", "M" * 5000):
            self.refuse(f"{value!r} of memory", 125, ("--memory", value[:60]),
                        *self.run_flags(f"--memory={value}", memory=""))
        for value in ("0", "-1", "nan", "inf", "1e5", "", "x", "10000000000"):
            self.refuse(f"{value!r} seconds", 125, ("--timeout", value), *self.run_flags(f"--timeout={value}"))
        self.assertEqual(self.run_vmmhost(*self.run_flags(memory="64MB")).code, 0, "MB is a unit")

    def test_names(self):
        for name, shown in (("a/b", "a/b"), ("..", '".."'), (".", '"."'), (".uids", ".uids"), ("-dash", "-dash"),
                            ("x" * 65, "x" * 60), ("x" * 10000, "x" * 60), ("new\nline", "new\\nline"),
                            ("\u00e9", "\u00e9"), ("\x1b[31m", "\\x1b[31m"), ("a b", "a b"), ("\u202ex", "\\u202ex"),
                            ("", "--name")):
            self.refuse(repr(name[:70]), 125, ("name", shown), *self.run_flags(f"--name={name}"))
            if name:
                for verb in ("inspect", "stop", "logs", "wait", "console"):
                    with self.subTest(f"{verb} {name[:70]!r}"):
                        self.check_error(self.run_vmmhost(verb, "--", name), 125, shown)
        self.refuse("not UTF-8", 125, ("--name", "\\xff"), *self.run_flags("--name=\udcff"))

    def test_name_taken(self):
        self.detached("taken", self.backend)
        given = self.run_flags("--name", "taken")
        self.check_error(self.run_vmmhost(*given), 125, ("taken", "running"))
        self.check_json_error(self.run_vmmhost(*given, "--json"), 125, "taken")
        self.check("stop", "taken")
        self.check_error(self.run_vmmhost(*given), 125, "vmmhost rm taken")
        self.check("rm", "taken")
        self.assertEqual(self.run_vmmhost(*given).code, 0)

    def test_usage(self):
        for what, names, *words in (
                ("unknown verb", "frobnicate", "frobnicate"),
                ("long verb", "x" * 60, "x" * 100000), ("verb with escapes", "\\x1b[31m", "\x1b[31m"),
                ("unknown flag", "--frobnicate", "run", "--frobnicate"),
                ("flag with escapes", "--\\x1b[31m\\n", "run", "--\x1b[31m\n"),
                ("long flag", "--" + "x" * 59 + "...", "run", "--" + "x" * 100000),
                ("many words", "w1", "ps", *(f"w{index}" for index in range(1, 3000))),
                ("flag without its value", "--kernel", "run", "--kernel"),
                ("empty value", "--backend", "run", "--kernel", "k", "--backend=", "--rm"),
                ("empty value of a list", "--without", "run", "--kernel", guest("poweroff"), "--without=", "--rm"),
                ("flag twice", "--kernel", "run", "--kernel", "a", "--kernel", "b"),
                ("flag of another verb", "--kernel", "ps", "--kernel", "x"),
                ("unexpected word", "word", "run", "word"), ("missing word", "name", "stop"),
                ("one word too many", "two", "stop", "one", "two"), ("short flags", "-xyz", "run", "-xyz"),
                ("flag with a value", "--rm", "run", "--rm=perhaps"),
                ("part of the jail", "nonsense", *self.run_flags("--without=nonsense")),
                ("name and follow", "-f", "logs", "-f", "--json", "x")):
            if what == "name and follow":
                self.check_json_error(self.run_vmmhost(*words), 125, names)
            else:
                self.refuse(what, 125, names, *words)
        for what, names, *words in (("no verb", "verb"), ("shell", "zsh", "completion", "zsh")):
            with self.subTest(what):
                self.check_error(self.run_vmmhost(*words), 125, names)
        for name, shown in (("nosuch", "nosuch"), ("x" * 10000, "x" * 60), ("a/b", "a/b"), ("..", '".."'),
                            ("\x1b[1m", "\\x1b[1m"), ("AUTO", "AUTO")):
            self.refuse(f"backend {name[:70]!r}", 127, (shown, self.backend), "run", "--rm", "--kernel",
                        guest("poweroff"), f"--backend={name}")

    def test_vm_unknown(self):
        for verb in ("inspect", "stop", "pause", "resume", "shutdown", "reset", "logs", "console", "wait"):
            self.refuse(verb, 127, "nobody", verb, "nobody")
        self.check_error(self.run_vmmhost("rm", "nobody"), 127, "nobody")
        self.assertEqual(self.run_vmmhost("rm", "nobody", "--json").json[0]["error"]["code"], "notFound")

    def test_descriptors_closed(self):
        loud, silent = guest("hello"), "/no/such/kernel"
        for redirection in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            for kernel_file, code in ((loud, 0), (silent, 127)):
                for more in ((), ("--json",)):
                    words = self.command(*self.run_flags(*more, kernel_file=kernel_file))
                    with self.subTest(f"{redirection} {kernel_file} {more}"):
                        done = self.shell(f'"$@" {redirection}', *words)
                        self.assertEqual(done.code, code, done.err)
                        if kernel_file == loud and not more and ">&-" not in redirection.replace("2>&-", ""):
                            self.assertIn("hello from the guest", done.out)
                        if kernel_file == silent and not more and "2>&-" not in redirection:
                            self.assertIn(silent, done.err)
                        self.assert_left_nothing()

    def shell(self, script, *words, timeout=60, stdout=subprocess.PIPE, **more):
        """A script of bash with `words` as its arguments."""
        done = subprocess.run(["bash", "-c", script, "bash", *words], stdin=subprocess.DEVNULL, stdout=stdout,
                              stderr=subprocess.PIPE, text=True, env={**self.environment, **more}, timeout=timeout,
                              cwd=self.folder)
        return harness.Result(done.returncode, done.stdout, done.stderr)

    def test_output_full_or_gone(self):
        verbs = [("ps",), ("version",), ("backends",), ("doctor",), ("completion", "bash"), ("--help",),
                 ("run", "--help"), ("--version",), ("inspect", "--config", "--kernel", "x"),
                 self.run_flags(kernel_file=guest("hello"))]
        for verb in verbs:
            with self.subTest(f"full: {verb}"):
                done = self.shell('"$@" >/dev/full', *self.command(*verb))
                self.assertEqual(done.code, 125, done.err)
                self.assertIn("No space left on device", done.err)
                self.assert_left_nothing()
            with self.subTest(f"closed pipe: {verb}"):
                # The reader is gone before the first word: a signal as for every program, or the same as an error.
                reader, writer = os.pipe()
                os.close(reader)
                done = self.shell('"$@"; echo "code $?" >&2', *self.command(*verb), stdout=writer)
                os.close(writer)
                self.assertRegex(done.err, r"code (141|125)")
                self.assert_left_nothing()
        for where in (">/dev/full", "| :"):
            with self.subTest(f"detached {where}"):
                done = self.shell(f'{{ sleep 0.1; "$@"; echo "code $?" >&2; }} {where}', *self.command(
                    "run", "--backend", self.backend, "--detach", "--rm", "--memory", "64M", "--kernel", guest("loop")))
                self.assertRegex(done.err, r"code (125|141)")
                harness.wait_until(lambda: not harness.processes(self.folder), 5, "the VM that nobody knows of is gone")
                self.assert_left_nothing()
        for where in ("2>/dev/full", "--json >/dev/full"):
            done = self.shell(f'"$@" {where}', *self.command(*self.run_flags(kernel_file="/no/such")))
            self.assertEqual((done.code, done.out, done.err), (127, "", ""))

    def test_odd_terminals(self):
        plain = self.shell('"$@"', *self.command("ps"))
        self.assertEqual((plain.code, plain.out[:5]), (0, "NAME "), plain.err)
        for odd in ({"COLUMNS": "0"}, {"COLUMNS": "-1"}, {"COLUMNS": "x" * 5000}, {"COLUMNS": "1", "LINES": "1"},
                    {"TERM": ""}, {"TERM": "\x1b[31m"}, {"TERM": "x" * 5000}, {"TERM": "dumb", "LC_ALL": "POSIX"}):
            with self.subTest(str(odd)[:40]):
                self.assertEqual(self.run_vmmhost("ps", environment=odd).out, plain.out)
                self.refuse(str(odd)[:40], 127, "nobody", "stop", "nobody", environment=odd)
                self.assertEqual(self.run_vmmhost(*self.run_flags(), environment=odd).code, 0)

    def test_folders(self):
        afile = self.file("afile")
        loose, foreign, link = (os.path.join(self.folder, name) for name in ("loose", "foreign", "link"))
        for folder in (loose, foreign):
            os.mkdir(folder, 0o700)
        os.chmod(loose, 0o777)
        os.symlink(self.folder, link)
        for variable in ("VMMHOST_RUNTIME_DIR", "VMMHOST_STATE_DIR"):
            cases = [("file", 126, afile, afile), ("below a file", 127, afile, afile + "/x"),
                     ("open to others", 126, loose, loose), ("link", 126, link, link),
                     ("relative", 125, (variable, "some/where"), "some/where"), ("root", 125, "/", "/"),
                     ("where nothing can be made", 127, "/proc/x", "/proc/x"),
                     ("too long", 125, "x" * 200, "/tmp/" + "x" * 300)]
            if os.geteuid() == 0:
                os.chown(foreign, 1234, 1234)
                cases.append(("of somebody else", 126, (foreign, "1234"), foreign))
            for what, code, names, value in cases:
                for words in (self.run_flags(), ("ps",)):
                    self.refuse(f"{variable} {what}", code, names, *words, environment={variable: value})
            made = os.path.join(self.folder, "made", variable)
            self.assertEqual(self.run_vmmhost(*self.run_flags(), environment={variable: made}).code, 0)
            self.assertEqual(os.stat(made).st_mode & 0o777, 0o700)


class JsonInput(Refusals):
    backend = backends()[0]

    def test_content(self):
        kernel_field = '"boot":{"kernel":"k"}'
        for what, names, text in (
                ("unknown field", "nonsense", f'{{{kernel_field},"nonsense":1}}'),
                ("unknown field inside", "boot.nonsense", '{"boot":{"kernel":"k","nonsense":1}}'),
                ("unknown field in a list", "platform.options[1].nam",
                 '{"platform":{"options":[{"name":"a"},{"nam":1}]}}'),
                ("string for a number", "cpus.count", '{"cpus":{"count":"2"}}'),
                ("number for a flag", "disks[0].readOnly", '{"disks":[{"file":"d","readOnly":1}]}'),
                ("true for an object", "cpus", '{"cpus":true}'),
                ("null for a text", "boot.kernel", '{"boot":{"kernel":null}}'),
                ("list for an object", "object", "[1]"), ("number alone", "object", "1"),
                ("null alone", "object", "null"),
                ("twice", "cpus", '{"cpus":{},"cpus":{}}'),
                ("two of a union", "nics[0].attachment.tap", '{"nics":[{"attachment":{"none":null,"tap":"x"}}]}'),
                ("unknown enumerant", ("disks[0].cache", "writeback"), '{"disks":[{"file":"d","cache":"x"}]}'),
                ("host's own field", "boot.kernel.resource", '{"boot":{"kernel":{"path":"k","resource":1}}}'),
                ("NaN", (":1:18", "cpus.count"), '{"cpus":{"count":NaN}}'),
                ("Infinity", (":1:18", "cpus.count"), '{"cpus":{"count":Infinity}}'),
                ("1e400", ("cpus.count", "1e400"), '{"cpus":{"count":1e400}}'),
                ("1e3", ("cpus.count", "1e3"), '{"cpus":{"count":1e3}}'),
                ("1.5", ("cpus.count", "1.5"), '{"cpus":{"count":1.5}}'),
                ("-1", ("memory.size", "-1"), '{"memory":{"size":-1}}'),
                ("2^64", ("memory.size", "18446744073709551616"), '{"memory":{"size":18446744073709551616}}'),
                ("hexadecimal", "cpus.count", '{"cpus":{"count":0x10}}'),
                ("leading 0", "cpus.count", '{"cpus":{"count":01}}'),
                ("size", ("memory.size", "512X"), '{"memory":{"size":"512X"}}'),
                ("size of 65 bits", ("memory.size", "99999999T"), '{"memory":{"size":"99999999T"}}'),
                ("trailing comma", ":1:", f"{{{kernel_field},}}"), ("comment", ":1:", f"{{/*c*/{kernel_field}}}"),
                ("line comment", ":1:1", f"// c\n{{{kernel_field}}}"), ("two documents", ":2:1", "{}\n{}"),
                ("single quotes", ":1:", "{'name':'a'}"), ("cut short", ":1:", '{"name":"a'), ("nothing", ":1:1", ""),
                ("white space", ":2:", " \n "), ("control character", (":1:", "name"), '{"name":"a\nb"}'),
                ("not UTF-8", (":1:", "name"), b'{"name":"\xff"}'), ("UTF-16", "NUL", '{"name":"a"}'.encode("utf-16")),
                ("high surrogate alone", (":1:", "name", "surrogate"), '{"name":"\\ud800"}'),
                ("low surrogate alone", (":1:", "name", "surrogate"), '{"name":"\\udc00x"}'),
                ("NUL", "NUL", b'{"name":"a\0b"}'), ("NUL, escaped", ("name", "NUL"), '{"name":"a\\u0000b"}'),
                ("NUL in a key", "name\\x00", '{"name\\u0000":1}'),
                ("escapes in a key", "a\\x1b[31m\\n", '{"a\\u001b[31m\\n":1}'),
                ("long key", "k" * 60, '{"' + "k" * 100000 + '":1}'),
                ("long number", ("cpus.count", "9" * 30), '{"cpus":{"count":' + "9" * 100000 + "}}"),
                ("deep list", "64 levels", '{"boot":' + "[" * 100000), ("deep object", "64 levels", '{"a":' * 100000),
                ("long list", "65536 items", '{"disks":[' + ",".join(["{}"] * 70000) + "]}")):
            path = self.file("vm.json", text)
            names = (names,) if isinstance(names, str) else names
            self.refuse(what, 125, (path, *names), "run", "--backend", self.backend, "-f", path)

    def test_values_out_of_their_range_are_named_by_field(self):
        for text, names in (('"memory":{"size":9007199254740993}', ("memory.size", "9007199254740993")),
                            ('"cpus":{"count":0}', ("cpus.count", "0")), ('"name":"a/b"', ("name", "a/b")),
                            ('"disks":[' + ",".join('{"file":"d%d"}' % index for index in range(300)) + "]",
                             ("disks", "300")),
                            ('"disks":[{"file":"d","id":"x"},{"file":"e","id":"x"}]', ("disks[1].id", "x")),
                            ('"disks":[{}]', ("disks[0].file",)),
                            ('"nics":[{"mac":"zz"}]', ("nics[0].mac", "zz")),
                            ('"vsock":{"cid":1}', ("vsock.cid", "1"))):
            path = self.file("vm.json", '{"boot":{"kernel":"k"},' + text + "}")
            self.refuse(text[:60], 125, names, "run", "--backend", self.backend, "-f", path)

    def test_files(self):
        # The one that takes its time is started first and looked at last.
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        waiting = self.start("run", "--backend", self.backend, "-f", fifo)
        for what, code, names, path in (
                ("missing", 127, (), "/no/such.json"), ("folder", 125, "folder", self.folder),
                ("nothing at all", 125, ":1:1", "/dev/null"), ("endless", 125, "4194304", "/dev/zero"),
                ("1 GiB", 125, str(1 << 30), self.file("gigabyte", size=1 << 30)),
                ("1 TiB", 125, str(BIG), self.file("terabyte", size=BIG)), ("no path", 125, "--file", "")):
            names = (names,) if isinstance(names, str) else names
            self.refuse(what, code, (path, *names), "run", "--backend", self.backend, f"--file={path}",
                        preexec_fn=self.little_memory)
        self.check_error(self.finish(waiting), 125, (fifo, "nobody wrote"))

    @staticmethod
    def little_memory():
        if not harness.SANITIZED:
            resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))

    def test_standard_input(self):
        sound = '{"boot":{"kernel":"%s"},"memory":{"size":"64M"}}' % guest("poweroff")
        given = ("run", "--backend", self.backend, "--rm", "-f", "-")
        self.assertEqual(self.run_vmmhost(*given, stdin=sound).code, 0)
        self.refuse("nothing", 125, "standard input:1:1", *given, stdin="")
        self.refuse("two documents", 125, "standard input:1:", *given, stdin=sound + " x")
        for path in ("/dev/zero", self.folder):
            with self.subTest(path):
                handle = os.open(path, os.O_RDONLY)
                try:
                    done = subprocess.run(self.command(*given), stdin=handle, capture_output=True, text=True,
                                          env=self.environment, timeout=60, preexec_fn=self.little_memory)
                finally:
                    os.close(handle)
                self.check_error(harness.Result(done.returncode, done.stdout, done.stderr), 125, "standard input")

    def test_process_substitution_is_read(self):
        sound = '{"boot":{"kernel":"%s"},"memory":{"size":"64M"}}' % guest("poweroff")
        done = subprocess.run(["bash", "-c", 'exec "$@" -f <(sleep 0.3; echo "$CONFIG")', "bash",
                               *self.command("run", "--backend", self.backend, "--rm")], text=True, timeout=60,
                              capture_output=True, env={**self.environment, "CONFIG": sound}, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)


class UserInput(Refusals, OrdinaryUserTest):
    """What only somebody who is not root can be refused."""
    backend = "qemu"

    def test_files_without_permission(self):
        secret = self.file("secret", harness.read(guest("poweroff")), mode=0)
        self.refuse("kernel", 125, ("boot.kernel: " + secret, "Permission denied"), *self.run_flags(kernel_file=secret))
        self.refuse("configuration", 125, (secret, "Permission denied"), *self.run_flags("-f", secret))
        disk = self.file("disk", size=MIB, mode=0o444)
        self.refuse("disk that can only be read", 125, ("disks[0]: " + disk, "Permission denied", ",ro"),
                    *self.run_flags("--disk", disk))
        self.assertEqual(self.run_vmmhost(*self.run_flags("--disk", disk + ",ro")).code, 0)
        shut = os.path.join(self.folder, "shut")
        os.mkdir(shut, 0)
        self.refuse("folder in between", 125, shut, *self.run_flags(kernel_file=shut + "/kernel"))

    def test_folders_of_somebody_else(self):
        for variable in ("VMMHOST_RUNTIME_DIR", "VMMHOST_STATE_DIR"):
            foreign = os.path.join(self.folder, variable)
            os.mkdir(foreign)
            if os.geteuid() == 0:
                self.refuse(f"{variable} of root", 126, (foreign, "user id 0"), "ps", environment={variable: foreign})
            os.chmod(foreign, 0)
            self.refuse(f"{variable} without access", 125, (foreign, "Permission denied"), "ps",
                        environment={variable: foreign})
            self.refuse(f"{variable} that cannot be made", 125, ("/vmmhost-not-there", "Permission denied"), "ps",
                        environment={variable: "/vmmhost-not-there"})

if __name__ == "__main__":
    unittest.main()
