"""What the benches of whole machines share: the lab, kernels, and processes that are ended with all that they started."""
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MARK = "VMMHOST_BENCH_MARK"  # in the environment of what a contender starts


class Failed(Exception):
    pass


def environment(folder, mark):
    """For a contender; `folder` has room for what vmmhost keeps, and `mark` is its own."""
    for name in ("run", "state"):
        os.makedirs(os.path.join(folder, name), 0o700, exist_ok=True)
    return {**os.environ, MARK: mark, "VMMHOST_RUNTIME_DIR": os.path.join(folder, "run"),
            "VMMHOST_STATE_DIR": os.path.join(folder, "state")}


def processes(mark):
    """Of one contender: whatever it started has this in its environment, or is a child of what has."""
    marker = f"{MARK}={mark}".encode()
    parents = {}
    ours = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                parents[int(pid)] = int(file.read().rpartition(b")")[2].split()[1])
            with open(f"/proc/{pid}/environ", "rb") as file:
                if marker in file.read():
                    ours.add(int(pid))
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= children
        grown = bool(children)
    return ours


def end(process, mark):
    """All of it, so that the next contender has the machine for itself."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    limit = time.monotonic() + 30
    while left := processes(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
        if time.monotonic() > limit:
            raise Failed(f"processes {left} cannot be ended")
    process.wait()


def qemu_microvm(program, memory, kernel, initramfs, command_line, *machine):
    """A command: as QEMU's page on microvm has it "with all optional legacy features disabled" (docs/performance.md),
    but for the serial port. There the guest speaks: to stock kernels virtio's console is a module, and what init
    says before it loads any would be lost. qboot is that page's firmware; unless it is named, QEMU takes what is called
    bios-microvm.bin, which is qboot on some systems only. `machine` has further options of the machine."""
    options = ",".join(("microvm,x-option-roms=off,pit=off,pic=off,rtc=off", *machine))
    return [program, "-M", options, "-bios", "qboot.rom", "-accel", "kvm", "-cpu", "host", "-m", str(memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
            "-initrd", initramfs, "-append", command_line]


def last_words(output):
    lines = output.decode(errors="replace").replace("\r", "").splitlines()
    return "\n".join("    | " + line for line in lines[-8:])


def machine_name():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    lab = ", the lab: its processors are translated" if os.environ.get("VMMHOST_LAB") == "1" else ""
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}{lab}"


def lab(options, *copies):
    """The beginning of a command that runs in the lab, with these files and vmmhost near."""
    command = [os.path.join(TOP, "tests", "lab", "run")]
    for path in (options.prefix, *copies):
        command += ["--copy", path]
    return [*command, "--", sys.executable, "-B"]


def files(options):
    if os.path.isfile(options.kernel):
        folder = os.path.dirname(os.path.abspath(options.kernel))
        return os.path.abspath(options.kernel), os.path.join(folder, "initramfs.cpio")
    cache = os.environ.get("VMMHOST_LAB_CACHE") or os.path.join(TOP, ".cache", "lab")
    folder = os.path.join(cache, "kernels", options.kernel)
    if os.environ.get("VMMHOST_LAB") != "1":
        subprocess.run([os.path.join(TOP, "tests", "lab", "kernels"), options.kernel], check=True)
    return os.path.join(folder, "vmlinux"), os.path.join(folder, "initramfs.cpio")
