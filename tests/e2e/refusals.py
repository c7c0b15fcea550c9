"""Input that is refused: how an error looks, to a person and to a program, and that nothing is left."""
import os
import re

from harness import VmmhostTest, guest

# One line, and perhaps one with a hint: printable, and of a length that somebody may read.
MESSAGE = re.compile(r"vmmhost: [^\x00-\x1f\x7f\x80-\x9f]{1,3000}\n(hint: [^\x00-\x1f\x7f\x80-\x9f]{1,3000}\n)?")
CODES = {"invalidArgument", "notFound", "alreadyExists", "unsupported", "unavailable", "permissionDenied",
         "failedPrecondition", "deadlineExceeded", "resourceExhausted", "confinement", "internal"}


class Refusals(VmmhostTest):
    backend = ""

    def file(self, name, content=b"", size=None, mode=None):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if size is not None:
                file.truncate(size)
        if mode is not None:
            os.chmod(path, mode)
        return path

    def run_flags(self, *arguments, memory="64M", kernel_file=None):
        given = ("run", "--backend", self.backend, "--rm", "--kernel", kernel_file or guest("poweroff"))
        return given + (("--memory", memory) if memory else ()) + arguments

    def check_error(self, result, code, names):
        """The text of a refusal; `names` is what it must contain."""
        self.assertEqual(result.code, code, f"{result.err}{result.out}")
        self.assertTrue(MESSAGE.fullmatch(result.err), repr(result.err[:5000]))
        self.assertEqual(result.out, "")
        for name in (names,) if isinstance(names, str) else names:
            self.assertIn(name, result.err)

    def check_json_error(self, result, code, names):
        self.assertEqual((result.code, result.err), (code, ""), result.out)
        self.assertEqual(list(result.json), ["error"])
        error = result.json["error"]
        members = ["code", "message", "hint", "retryable"]
        if "field" in error:  # a field of the configuration is at fault, and the message names it
            self.assertRegex(error["field"], r"^[ -~]{1,256}$")
            self.assertIn(error["field"], error["message"])
            members.append("field")
        self.assertEqual(list(error), members)
        self.assertIn(error["code"], CODES)
        self.assertLessEqual(len(error["message"]) + len(error["hint"]), 6000)
        for name in (names,) if isinstance(names, str) else names:
            self.assertIn(name, error["message"] + " " + error["hint"])

    def assert_left_nothing(self):
        for place in ("run", "run/.uids", "state"):
            path = os.path.join(self.folder, place)
            left = [name for name in (os.listdir(path) if os.path.isdir(path) else []) if name != ".uids"]
            self.assertEqual(left, [], f"left in {place}")

    def refuse(self, what, code, names, *arguments, **options):
        """Runs it twice, for a person and for a program."""
        with self.subTest(what):
            self.check_error(self.run_vmmhost(*arguments, **options), code, names)
            self.check_json_error(self.run_vmmhost(arguments[0], "--json", *arguments[1:], **options), code, names)
            self.assert_left_nothing()
