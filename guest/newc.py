"""Writes cpio archives that the kernel unpacks as an initramfs (buffer-format.rst: newc)."""
import os
import stat

# Eight hexadecimal digits.
MAX_FILE = (1 << 32) - 1


class Archive:
    """Everything owned by root and without times unless the caller says otherwise: the same files, the same bytes."""

    def __init__(self, output):
        self.output = output
        self.size = 0
        self.inode = 0

    def _put(self, data):
        self.output.write(data)
        self.size += len(data)

    def _align(self):
        self._put(b"\0" * (-self.size % 4))

    def _header(self, name, mode, size, device=(0, 0), owner=(0, 0), time=0):
        self.inode += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self.inode, mode, *owner, 1, time, size, 0, 0, *device, len(encoded), 0)
        self._put(b"070701" + b"".join(b"%08x" % field for field in fields))
        self._put(encoded)
        self._align()

    def add(self, name, mode, data=b"", **more):
        self._header(name, mode, len(data), **more)
        self._put(data)
        self._align()

    def folder(self, name):
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o644):
        self.add(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def copy(self, name, path):
        """A file, folder (without what is in it) or symbolic link as it is, with its owner, mode and time."""
        status = os.lstat(path)
        more = {"owner": (status.st_uid, status.st_gid), "time": int(status.st_mtime) & MAX_FILE}
        if stat.S_ISLNK(status.st_mode):
            self.add(name, status.st_mode, os.fsencode(os.readlink(path)), **more)
        elif stat.S_ISDIR(status.st_mode):
            self.add(name, status.st_mode, **more)
        elif stat.S_ISREG(status.st_mode):
            if status.st_size > MAX_FILE:
                raise ValueError(f"{path} is larger than 4 GiB, which an initramfs cannot hold")
            self._header(name, status.st_mode, status.st_size, **more)
            end = self.size + status.st_size
            with open(path, "rb") as file:
                while self.size < end:
                    data = file.read(min(1 << 20, end - self.size))
                    if not data:
                        raise ValueError(f"{path} became shorter while it was read")
                    self._put(data)
            self._align()
        else:
            raise ValueError(f"{path} is neither file, folder nor symbolic link")

    def finish(self):
        self.add("TRAILER!!!", 0)
        self._put(b"\0" * (-self.size % 512))
