"""Results that were made before ctest asks for them: a machine can begin as soon as what runs in it is built, beside the
building of everything else.

They are handed over once, and only to who would get the same: the stamp stands for every file that the tests in the machine
come from and for what they are told by the environment. Whatever else there is, or if nothing is, tests are run.
"""
import contextlib
import fcntl
import hashlib
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SOURCES = ("tests/lab", "tests/e2e", "tests/conformance", "guest")
TOLD = ("VMMHOST_", "LC_")  # as tests/lab/run passes it on
OWN = "VMMHOST_LAB_MISSING"  # of batch.py, which finds it out from the kernels


@contextlib.contextmanager
def alone(results):
    """Waits until nobody else works on these results. The kernel lets go of them for who is killed."""
    os.makedirs(results, exist_ok=True)
    with open(os.path.join(results, "lock"), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("batch: these tests run already; waiting for their results", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def files_below(path):
    if os.path.isfile(path):
        yield path
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if name != "__pycache__")
        yield from (os.path.join(folder, name) for name in sorted(files))


def stamp(batch, only):
    """Of what would run now: the programs and scripts, kernels by their versions, and the environment."""
    environment = os.environ
    places = [os.path.abspath(batch), environment["VMMHOST_STAGE"], environment["VMMHOST_GUESTS"],
              *(os.path.join(TOP, source) for source in SOURCES)]
    caches = [environment["VMMHOST_LAB_KERNELS"], environment["VMMHOST_GUEST_KIT"]]
    total = hashlib.sha256()

    def add(path):
        total.update(path.encode(errors="surrogateescape") + b"\0")
        try:
            with open(path, "rb") as file:
                total.update(hashlib.sha256(file.read()).digest())
        except OSError:
            total.update(b"nothing")  # a link that leads nowhere

    for place in places:
        for path in files_below(place):
            add(path)
    for cache in caches:
        for path in files_below(cache):
            if os.path.basename(path) == ".stamp":
                add(path)
    told = sorted(item for item in environment.items() if item[0].startswith(TOLD) and item[0] != OWN)
    total.update(json.dumps([told, only]).encode())
    return total.hexdigest()


def place(results):
    return os.path.join(results, "ahead")


def leave(results, mark, said):
    """Everything has a result: for who has the same stamp. `said` goes with it."""
    with open(place(results) + ".part", "w", encoding="utf-8") as file:
        json.dump({"stamp": mark, "said": said}, file)
    os.replace(place(results) + ".part", place(results))


def take(results, mark):
    """What was said, if results were left for this stamp; None if not. There is nothing to be taken afterwards."""
    try:
        with open(place(results), encoding="utf-8") as file:
            left = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    discard(results)
    if left["stamp"] != mark:
        print("batch: what was run ahead is not what would run now", flush=True)
        return None
    return left["said"]


def discard(results):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place(results))
