"""Puts the table of grants into docs/plugins.md, so that the page cannot tell otherwise than the code.

    grants_page.py PAGE PROGRAM            writes the page
    grants_page.py --check PAGE PROGRAM    exit code 1 and the difference if the page is not what it makes

PROGRAM is print-grants, which knows the table of ipc/jail/seccomp/grants.cc.
"""
import difflib
import subprocess
import sys

BEGIN, END = "<!-- grants: begin -->\n", "<!-- grants: end -->\n"
HEAD = "| grant | bit | what it allows |\n|---|---|---|\n"


def main(arguments):
    check = arguments[:1] == ["--check"]
    page, program = arguments[1:] if check else arguments
    with open(page) as file:
        text = file.read()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page}: the marks around the table of grants are missing")
    rows = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    made = f"{before}{BEGIN}{HEAD}{rows}{END}{after}"
    if not check:
        with open(page, "w") as file:
            file.write(made)
    elif made != text:
        sys.stdout.writelines(difflib.unified_diff(text.splitlines(True), made.splitlines(True), page, "as it is made"))
        sys.exit(f"{page} does not have the grants that there are: build the target grants-page")


main(sys.argv[1:])
