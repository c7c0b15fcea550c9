"""VMs whose worker has a policy of grants, with the backend of tests/fake."""
import os
import unittest

from harness import VmmhostTest, guest

FAKE_PLUGINS = os.environ["VMMHOST_FAKE_PLUGINS"]


class Grants(VmmhostTest):
    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = FAKE_PLUGINS

    def jail_of(self, *arguments):
        self.check("run", "--backend", "fake", "--name", "vm", "--detach", *arguments, "--kernel", guest("loop"))
        jail = self.inspect("vm")["jail"]
        self.check("stop", "vm")
        return [line for line in jail if line.startswith("seccomp policy: ")]

    def test_composed_policy_runs_a_vm_and_is_shown(self):
        self.assertEqual(self.jail_of("--cmdline", "jail=grants"),
                         ["seccomp policy: grants: vsock-sockets, with 1 instances of epoll"])

    def test_named_policy_is_shown_by_its_name(self):
        self.assertEqual(self.jail_of(), ["seccomp policy: worker-static, with 1 instances of epoll"])

    def test_guest_runs_to_its_end(self):
        result = self.check("run", "--backend", "fake", "--cmdline", "jail=grants", "--kernel", guest("hello"))
        self.assertIn("hello", result.out.lower())


if __name__ == "__main__":
    unittest.main()
