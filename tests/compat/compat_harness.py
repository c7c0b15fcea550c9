"""Where the fixtures are, and the harness of the end-to-end tests."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import DEADLINE, STAGE, VmmhostTest, guest, read, wait_until  # noqa: E402,F401

THEN = os.environ["COMPAT_THEN"]          # the folder of a version here
PROGRAMS = os.environ["COMPAT_PROGRAMS"]  # what was built of it: client, supervisor
PLUGINS = os.environ["COMPAT_PLUGINS"]    # and its backends, fake and plain


class CompatTest(VmmhostTest):
    def setUp(self):
        super().setUp()
        self.environment["VMMHOST_PLUGIN_PATH"] = PLUGINS
