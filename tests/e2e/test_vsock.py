"""vsock through the installed command and its sockets, with the backend of tests/fake: port 7 of its guest sends back
what it gets, port 8 is joined with port 8 of the host, and nobody listens on any other."""
import os
import socket
import threading
import unittest

from harness import DEADLINE, VmmhostTest, guest

CONFIG = '{"vsock": {}}'


class Vsock(VmmhostTest):
    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = os.environ["VMMHOST_FAKE_PLUGINS"]
        self.config = os.path.join(self.folder, "vm.json")
        with open(self.config, "w") as file:
            file.write(CONFIG)

    def vm(self, name="vm"):
        return self.detached(name, "fake", "-f", self.config)

    def connect(self, info, line):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        # Its path may be longer than an address can be.
        folder = os.open(os.path.dirname(info["vsockSocket"]), os.O_PATH)
        try:
            client.connect(f"/proc/self/fd/{folder}/vsock")
        finally:
            os.close(folder)
        client.settimeout(DEADLINE)  # not before: connecting waits for room among those that wait
        client.sendall(line)
        return client

    def test_port_that_answers(self):
        self.vm()
        result = self.check("vsock", "vm", "7", stdin="hello guest\n")
        self.assertEqual(result.out, "hello guest\n")
        self.check("stop", "vm")

    def test_much_goes_through_whole(self):
        self.vm()
        much = os.urandom(8 << 20)
        process = self.start("vsock", "vm", "7")
        out, err = process.communicate(much, timeout=DEADLINE)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(out, much)
        self.check("stop", "vm")

    def test_guest_reaches_a_service_of_the_host(self):
        info = self.vm()
        folder = os.path.dirname(info["vsockSocket"])
        listener = socket.socket(socket.AF_UNIX)
        held = os.open(folder, os.O_PATH)  # its path may be longer than an address can be
        self.addCleanup(os.close, held)
        listener.bind(f"/proc/self/fd/{held}/vsock_8")
        listener.listen()
        said = []

        def serve():
            service, _ = listener.accept()
            with service:
                service.sendall(b"from the host\n")
                while part := service.recv(4096):
                    said.append(part)

        thread = threading.Thread(target=serve)
        thread.start()
        result = self.check("vsock", "vm", "8", stdin="from the client\n")
        thread.join(DEADLINE)
        self.assertEqual(result.out, "from the host\n")
        self.assertEqual(b"".join(said), b"from the client\n")
        listener.close()
        self.check("stop", "vm")  # and takes the service's socket with it

    def test_convention_of_the_socket(self):
        info = self.vm()
        self.assertEqual(info["vsockSocket"], os.path.join(self.folder, "run", "vm", "vsock"))
        self.assertIn("vsock", info["abilities"])
        client = self.connect(info, b"CONNECT 7\nhello")
        seen = b""
        while len(seen.partition(b"\n")[2]) < 5:
            part = client.recv(100)
            self.assertTrue(part, seen)
            seen += part
        self.assertRegex(seen, rb"^OK [0-9]+\nhello$")
        client.close()
        self.assertEqual(self.connect(info, b"CONNECT 9\n").recv(100), b"")
        with self.assertRaises((ConnectionResetError, AssertionError)):  # or, if it was read before, an end
            self.assertNotEqual(self.connect(info, b"HELLO\n").recv(100), b"")
        self.check("stop", "vm")
        self.assertEqual(self.inspect("vm")["vsockSocket"], "")

    def test_many_at_once(self):
        info = self.vm()
        clients = [self.connect(info, b"CONNECT 7\n") for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            client.shutdown(socket.SHUT_WR)
        for number, client in enumerate(clients):
            seen = b""
            while part := client.recv(100):
                seen += part
            self.assertRegex(seen, rb"^OK [0-9]+\n%d$" % number)
            client.close()
        self.check("stop", "vm")

    def test_refusals(self):
        self.vm()
        nobody = self.check("vsock", "vm", "9", code=125)
        self.assertIn("vsock port 9", nobody.err)
        self.assertEqual(nobody.out, "")
        self.assertIn("4294967295", self.check("vsock", "vm", "many", code=125).err)
        self.assertIn("no VM called", self.check("vsock", "nobody", "7", code=127).err)
        self.check("run", "--backend", "fake", "--name", "plain", "--detach", "--kernel", guest("loop"))
        self.assertIn("no vsock device", self.check("vsock", "plain", "7", code=125).err)
        self.check("stop", "plain")
        self.check("stop", "vm")
        self.assertIn("has ended", self.check("vsock", "vm", "7", code=125).err)

    def test_end_of_the_vm_ends_connections(self):
        info = self.vm()
        client = self.connect(info, b"CONNECT 7\n")
        self.assertRegex(client.recv(100), rb"^OK ")
        self.check("stop", "vm")
        self.assertEqual(client.recv(100), b"")


if __name__ == "__main__":
    unittest.main()
