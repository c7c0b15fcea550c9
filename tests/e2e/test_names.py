"""What verbs do about a name that another process is changing and does not come to an end with."""
import fcntl
import os
import signal
import struct
import subprocess
import time
import unittest

from harness import VmmhostTest, read, wait_until

CHANGE = 1  # the byte of NAME/lock that whoever changes the entry holds, see host/runtime/name_lock.h


class Names(VmmhostTest):
    def hold(self, name):
        """A process that holds the lock of `name` as a command does, and is suspended."""
        folder = os.path.join(self.folder, "run", name)
        os.mkdir(folder, 0o700)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            change = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, CHANGE, 1, 0) + bytes(4)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, change)
            holder = subprocess.Popen(["sleep", "1000"], pass_fds=[lock])  # the lock is the open file's
            self.background.append(holder)
            os.pwrite(lock, f"{holder.pid} {time.monotonic_ns()}\n".encode(), 0)
        finally:
            os.close(lock)
        holder.send_signal(signal.SIGSTOP)
        wait_until(lambda: read(f"/proc/{holder.pid}/stat").rpartition(b") ")[2][:1] == b"T", 30, "it is stopped")
        return holder

    def assert_named(self, error, holder):
        self.assertEqual((error["code"], error["retryable"]), ("unavailable", True))
        self.assertIn(f'the entry "vm": process {holder.pid} (sleep), which is stopped', error["message"])
        self.assertIn(f"kill -CONT {holder.pid}", error["hint"])

    def test_holder_that_is_stopped_is_named(self):
        holder = self.hold("vm")
        self.assert_named(self.check("inspect", "vm", "--json", code=126).json["error"], holder)
        removed = self.check("rm", "vm", "--json", code=126).json
        self.assertEqual([(one["name"], one["removed"]) for one in removed], [("vm", False)])
        self.assert_named(removed[0]["error"], holder)
        said = self.check("stop", "vm", code=126).err
        self.assertIn(f"process {holder.pid}", said)
        listed = self.check("ps", "-a", "--json").json
        self.assertEqual([(one["name"], one["state"]) for one in listed], [("vm", "notAnswering")])
        self.assertIn("being changed by another command", self.check("ps", "-a").out)
        holder.kill()  # and with it the lock is gone
        holder.wait()
        self.check("rm", "vm")


if __name__ == "__main__":
    unittest.main()
