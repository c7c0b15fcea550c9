"""What tests execute as another user has to lie where that user can read it, and a clone may lie below a folder that is
closed to others, such as a home of mode 0700.

    reachable.py make BUILD      links BUILD/reachable to the build itself if USER can execute what is in it, or else to
                                 a copy of what tests need of it
    reachable.py remove BUILD    removes link and copy

ctest does the one before the tests that need it and the other after them, and names the link in VMMHOST_REACHABLE for
them to follow: found().
"""
import os
import shutil
import stat
import sys
import tempfile

USER = 1000  # the ordinary user of tests that root runs
LINK = "reachable"
PREFIX = "vmmhost-reachable-"


def parts(build):
    """What of a build tests execute or load: the installed prefix, guests, and folders of plugins."""
    plugins = [os.path.join("lib", name) for name in sorted(os.listdir(os.path.join(build, "lib")))
               if name.endswith("-plugins")] if os.path.isdir(os.path.join(build, "lib")) else []
    return [name for name in ("stage", "guests", *plugins) if os.path.isdir(os.path.join(build, name))]


def as_user(question):
    """What USER would answer; for root only."""
    pid = os.fork()
    if pid == 0:
        answer = 2
        try:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            answer = 0 if question() else 1
        finally:
            os._exit(answer)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def closed_to_user(build):
    """The first of what tests need that USER cannot enter, read or execute; None: there is nothing."""
    for part in parts(build):
        for folder, names, files in os.walk(os.path.join(build, part)):
            if not os.access(folder, os.R_OK | os.X_OK):
                return folder
            for name in files:
                path = os.path.join(folder, name)
                executed = os.X_OK if os.stat(path).st_mode & 0o100 else 0
                if not os.access(path, os.R_OK | executed):
                    return path
    return None


def can_use(build):
    names = parts(build)  # asked as root: to who cannot enter the folder there seems to be nothing
    return as_user(lambda: parts(build) == names and closed_to_user(build) is None)


def copy_file(source, target):
    """A second name where that is enough, since some of these files are large; else a copy for everybody."""
    mode = stat.S_IMODE(os.stat(source).st_mode)
    wanted = 0o755 if mode & 0o100 else 0o644
    try:
        if mode != wanted:
            raise OSError
        os.link(source, target, follow_symlinks=True)
    except OSError:  # another file system, or a mode that is not for everybody
        shutil.copyfile(source, target)
        os.chmod(target, wanted)
    return target


def copy(build):
    """Copies to a new folder for temporary files, which is the caller's to remove; says why if USER can do nothing with
    it there."""
    folder = tempfile.mkdtemp(prefix=PREFIX)
    os.chmod(folder, 0o755)
    try:
        for part in parts(build):
            shutil.copytree(os.path.join(build, part), os.path.join(folder, part), symlinks=True,
                            copy_function=copy_file)
        for place, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(os.path.join(place, name)):
                    os.chmod(os.path.join(place, name), 0o755)
        if not can_use(folder):
            raise PermissionError(f"user {USER} can execute nothing in {os.path.dirname(folder)}, where tests put what "
                                  "that user is to run: set TMPDIR to a folder that everybody may enter, on a file "
                                  "system without noexec")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def make(build):
    """The folder, which is the build itself or a copy; linked to from it."""
    remove(build)
    folder = build
    if os.geteuid() == 0:
        # Tests make their own folders there, too.
        temporary = tempfile.gettempdir()
        if not as_user(lambda: os.access(temporary, os.X_OK)):
            raise PermissionError(f"user {USER} cannot enter {temporary}, where tests run: set TMPDIR to a folder that "
                                  "everybody may enter")
        if not can_use(build):
            folder = copy(build)
    os.symlink(folder, os.path.join(build, LINK))
    return folder


def remove(build):
    link = os.path.join(build, LINK)
    try:
        folder = os.readlink(link)
    except FileNotFoundError:
        return
    # Nothing but what this program made.
    if os.path.basename(folder).startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os.unlink(link)


def found():
    """The folder that ctest had made for this test; None: it had not."""
    link = os.environ.get("VMMHOST_REACHABLE", "")
    return os.path.realpath(link) if os.path.exists(link) else None


def main():
    verb, build = sys.argv[1], os.path.abspath(sys.argv[2])
    if verb == "make":
        try:
            print(f"reachable: {make(build)}")
        except OSError as error:
            sys.exit(f"reachable: {error}")
    elif verb == "remove":
        remove(build)
    else:
        sys.exit(f"reachable: no verb {verb}")


if __name__ == "__main__":
    main()
