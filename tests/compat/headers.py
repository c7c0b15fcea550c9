"""What of the installed headers is no longer as it was: the layout and the values of the plugin interface in C, and what
each header brings along."""
import functools
import os
import re
import subprocess
import tempfile

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
PLUGIN = "vmmhost/plugin.h"


def includes_of(header, folders):
    """The names that a header includes itself, or None where no folder has it; generated ones include nothing here."""
    if header.startswith("vmmhost/schema/"):
        return []
    for folder in folders:
        path = os.path.join(folder, header)
        if os.path.exists(path):
            with open(path) as file:
                return re.findall(r'^#include [<"]([^>"]+)[>"]', file.read(), re.MULTILINE)
    return [] if not header.startswith("vmmhost/") else None


def brings(header, folders):
    """The header, and everything of vmmhost's and of the system's that including it includes by name."""
    seen, left = set(), [header]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += includes_of(name, folders) or []
    return seen


def headers_in(folder):
    for path, _, files in os.walk(folder):
        for file in files:
            yield os.path.relpath(os.path.join(path, file), folder)


def compare_includes(then, now):
    """Sentences; `then` is a folder of headers, `now` a list of such folders."""
    found = []
    for header in sorted(headers_in(then)):
        if includes_of(header, now) is None:
            found.append(f"{header}: gone")
            continue
        found += [f"{header}: does not bring {name} any more"
                  for name in sorted(brings(header, [then]) - brings(header, now))]
    return found


class Interface:
    """The names in plugin.h."""

    def __init__(self, folder):
        with open(os.path.join(folder, PLUGIN)) as file:
            text = COMMENT.sub("", file.read())
        self.structs = {}
        for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", text, re.DOTALL):
            members = [member for member in body.split(";") if member.strip()]
            self.structs[name] = [(re.search(r"\(\*(\w+)\)", member) or re.search(r"(\w+)\s*$", member)).group(1)
                                  for member in members]
        self.macros = [name for name, value in re.findall(r"^#define (\w+) (.+)", text, re.MULTILINE)
                       if not value.startswith("__attribute__")]
        self.enumerators = [name for body in re.findall(r"\benum \{(.*?)\}", text, re.DOTALL)
                            for name in re.findall(r"\bVMMHOST_\w+", re.sub(r"=[^,]*", "", body))]
        self.functions = re.findall(r"^typedef .*\(\*(\w+)\)", text, re.MULTILINE)

    def names(self):
        return ([*self.structs] + [f"{struct}.{field}" for struct, fields in self.structs.items() for field in fields] +
                self.macros + self.enumerators + self.functions)


PROGRAM = """#include <cstdio>
#include <typeinfo>
#include "vmmhost/plugin.h"
static void value(const char* name, const char* text) { std::printf("%s value \\"%s\\"\\n", name, text); }
static void value(const char* name, unsigned long number) { std::printf("%s value %lu\\n", name, number); }
#define STRUCT(type) std::printf("%s size %zu\\n", #type, sizeof(type));
#define FIELD(type, field) std::printf("%s.%s place offset %zu, %zu bytes, type %s\\n", #type, #field, \\
  offsetof(type, field), sizeof(type::field), typeid(decltype(type::field)).name());
int main() {
"""


def facts(folder, interface, names):
    """name -> what the compiler makes of it, for those names of the interface, with the header of a folder."""
    lines = []
    for struct, fields in interface.structs.items():
        if struct in names:
            lines += [f"STRUCT({struct})"] + [f"FIELD({struct}, {field})" for field in fields
                                              if f"{struct}.{field}" in names]
    for name in interface.macros + interface.enumerators:
        if name in names:
            lines.append(f'value("{name}", {name});')
    for name in interface.functions:
        if name in names:
            lines.append(f'std::printf("%s type %s\\n", "{name}", typeid({name}).name());')
    with tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, "facts.cc")
        with open(source, "w") as file:
            file.write(PROGRAM + "\n".join(lines) + "\n}\n")
        program = os.path.join(scratch, "facts")
        subprocess.run([os.environ.get("CXX", "c++"), "-std=c++17", "-Wno-invalid-offsetof", "-I", folder, source, "-o",
                        program], check=True)
        told = subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in told.splitlines()}


@functools.cache
def facts_of_then(folder):
    interface = Interface(folder)
    return facts(folder, interface, interface.names())


def compare_plugin(then, now):
    """Sentences about what a plugin built with the header of `then` relies on and that of `now` has otherwise."""
    interface, other = Interface(then), set(Interface(now).names())
    found = [f"{name}: gone" for name in interface.names() if name not in other]
    before = facts_of_then(then)
    after = facts(now, interface, set(interface.names()) & other)
    for name in filter(after.get, before):
        what, _, was = before[name].partition(" ")
        _, _, is_now = after[name].partition(" ")
        if was == is_now or may_grow(interface, name) and int(is_now) > int(was):
            continue
        found.append(f"{name}: the {what} was {was}, is {is_now}")
    return found


def may_grow(interface, name):
    """A struct that tells its size, and the minor version; not what lies in arrays."""
    return name in ("VMMHOST_PLUGIN_ABI_MINOR", "VMMHOST_PLUGIN_ABI") or interface.structs.get(name, [""])[0] == "size"
