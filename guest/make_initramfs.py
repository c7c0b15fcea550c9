#!/usr/bin/env python3
"""Writes the guest's initramfs (cpio, newc) without root and reproducibly: the same inputs give the same bytes."""
import argparse
import gzip
import lzma
import os
import stat
import subprocess
import sys

from newc import Archive


def fail(message):
    sys.exit(f"make_initramfs: {message}")


def module_bytes(path):
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def canonical(name):
    return name.replace("-", "_")


def dependencies(data, path):
    """The module's own list: "depends=a,b" in its .modinfo section."""
    at = data.find(b"\0depends=")
    if at < 0:
        fail(f"{path} has no depends= entry")
    end = data.index(b"\0", at + 1)
    return [canonical(name) for name in data[at + 9:end].decode().split(",") if name]


def collect(wanted, root, builtin):
    """Every module needed, each after those that it depends on."""
    paths = {}
    for folder, _, names in os.walk(root):
        for name in names:
            stem, dot, ending = name.partition(".ko")
            if dot and ending in ("", ".xz", ".gz", ".zst"):
                paths[canonical(stem)] = os.path.join(folder, name)
    result = {}

    def visit(name, trail):
        if name in result or name in builtin:
            return
        if name in trail:
            fail(f"modules depend on each other: {' '.join(trail)} {name}")
        if name not in paths:
            if trail:
                fail(f"module {trail[-1]} needs {name}, which the kernel package lacks")
            print(f"make_initramfs: this kernel has no module {name}", file=sys.stderr)
            return
        data = module_bytes(paths[name])
        for needed in dependencies(data, paths[name]):
            visit(needed, trail + [name])
        result[name] = data

    for name in wanted:
        visit(canonical(name), [])
    return result


def write(archive, init, busybox, applets, modules, extras):
    for folder in ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules", "mnt", "proc", "root",
                   "run", "sys", "tmp"):
        archive.folder(folder)
    archive.link("sbin", "bin")
    # The kernel opens it for init's descriptors 0, 1 and 2 before anything can be mounted.
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.file("init", init, 0o755)
    archive.file("bin/busybox", busybox, 0o755)
    for applet in sorted(applets):
        if applet not in ("busybox", "init", "linuxrc"):
            archive.link("bin/" + applet, "busybox")
    for name, data in modules.items():
        archive.file(f"lib/modules/{name}.ko", data)
    archive.file("lib/modules/order", "".join(name + "\n" for name in modules).encode())
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.file("etc/acpi/PWRF/00000080", b"#!/bin/sh\necho 'vmmhost-guest: power button' >/dev/console\nexec poweroff -f\n",
                 0o755)
    for extra in extras:
        name, _, path = extra.partition("=")
        archive.folder(os.path.dirname(name))
        with open(path, "rb") as file:
            archive.file(name, file.read(), 0o755)
    archive.finish()


def main():
    parser = argparse.ArgumentParser()
    for option in ("busybox", "init", "modules", "kernel-modules", "builtin", "output"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--add", metavar="NAME=PATH", action="append", default=[], help="one more executable, in a folder of its own")
    options = parser.parse_args()

    with open(options.modules, encoding="ascii") as file:
        wanted = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    with open(options.builtin, encoding="ascii") as file:
        builtin = {canonical(os.path.basename(line.strip()).partition(".ko")[0]) for line in file}
    modules = collect(wanted, options.kernel_modules, builtin)

    with open(options.busybox, "rb") as file:
        busybox = file.read()
    applets = subprocess.run([options.busybox, "--list"], stdout=subprocess.PIPE, check=True).stdout.decode().split()
    with open(options.init, "rb") as file:
        init = file.read()

    temporary = options.output + ".part"
    with open(temporary, "wb") as output:
        write(Archive(output), init, busybox, applets, modules, options.add)
    os.replace(temporary, options.output)


main()
