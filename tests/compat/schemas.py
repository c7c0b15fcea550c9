"""What of a set of Cap'n Proto schemas is no longer as it was: names, numbers, types, defaults and annotations.

Additions are fine: files, types, fields, enumerants, union members, methods, parameters, annotations, and constants
whose name ends with Minor may become larger. All else that peers on the wire, JSON files or generated code rely on has
to stay.
"""
import ast
import os
import re
import subprocess

TOKEN = re.compile(r'[()\[\],=]|"(?:[^"\\]|\\.)*"|<[^>]*>|[^\s()\[\],="]+')


def parse_text(text):
    """Cap'n Proto's text form: structs become dictionaries, lists lists, names and what is opaque strings."""
    tokens = TOKEN.findall(text)
    at = 0

    def value():
        nonlocal at
        token = tokens[at]
        at += 1
        if token == "(":
            return members(")", lambda: (name(), value()), dict)
        if token == "[":
            return members("]", value, list)
        if token.startswith('"'):
            return ast.literal_eval(token)
        return int(token) if token.lstrip("-").isdigit() else {"true": True, "false": False}.get(token, token)

    def name():
        nonlocal at
        at += 2  # and the equals sign
        return tokens[at - 2]

    def members(end, member, kind):
        nonlocal at
        found = []
        while tokens[at] != end:
            found.append(member())
            at += tokens[at] == ","
        at += 1
        return kind(found)

    return value()


class Schemas:
    """The schemas of a folder, as the Cap'n Proto compiler understands them."""

    def __init__(self, folder, include):
        files = sorted(name for name in os.listdir(folder) if name.endswith(".capnp"))
        compiled = subprocess.run(["capnp", "compile", "-o-", "-I" + include, *files], cwd=folder, check=True,
                                  env={**os.environ, "PWD": os.path.abspath(folder)}, stdout=subprocess.PIPE)
        schema = os.path.join(include, "capnp", "schema.capnp")
        text = subprocess.run(["capnp", "convert", "binary:text", schema, "CodeGeneratorRequest"], check=True,
                              input=compiled.stdout, stdout=subprocess.PIPE)
        self.nodes = {node["id"]: node for node in parse_text(text.stdout.decode())["nodes"]}
        self.own = [node for node in self.nodes.values() if node["displayName"].partition(":")[0] in files]

    def name(self, identity):
        """How a person would write the type: Disk.Cache; of another folder's: capnp/c++.capnp:namespace."""
        node = self.nodes.get(identity)
        if node is None:
            return f"@{identity:#x}"
        file, _, name = node["displayName"].partition(":")
        return node["displayName"] if "/" in file or not name else name

    def type(self, value):
        """A type as it is written in a schema."""
        (kind, inner), = value.items()
        if kind == "list":
            return f"List({self.type(inner['elementType'])})"
        return self.name(inner["typeId"]) if isinstance(inner, dict) and "typeId" in inner else kind


class Comparison:
    def __init__(self, then, now):
        self.then, self.now, self.found = then, now, []

    def say(self, text):
        self.found.append(text)

    def same(self, where, what, then, now):
        if then != now:
            self.say(f"{where}: {what} was {then}, is {now}")

    def all(self):
        for node in self.then.own:
            # Groups and parameters come with what they belong to.
            if node.get("struct", {}).get("isGroup") or "$" in node["displayName"]:
                continue
            where = self.then.name(node["id"])
            if node["id"] not in self.now.nodes:
                self.say(f"{where}: gone, or has another name or id")
                continue
            self.node(where, node, self.now.nodes[node["id"]])
        return self.found

    def node(self, where, then, now):
        self.same(where, "the name", self.then.name(then["id"]), self.now.name(now["id"]))
        self.annotations(where, then, now)
        for kind in ("struct", "enum", "interface", "const", "annotation"):
            if kind in then and kind not in now:
                self.say(f"{where}: is no {kind} any more")
            elif kind in then:
                getattr(self, kind)(where, then[kind], now[kind])

    def annotations(self, where, then, now):
        present = {annotation["id"]: annotation["value"] for annotation in now.get("annotations", [])}
        for annotation in then.get("annotations", []):
            name = "$" + self.then.name(annotation["id"])
            if annotation["id"] not in present:
                self.say(f"{where}: {name} is gone")
            else:
                self.same(where, name, annotation["value"], present[annotation["id"]])

    def struct(self, where, then, now):
        for size in ("dataWordCount", "pointerCount", "discriminantCount"):
            if now[size] < then[size]:
                self.say(f"{where}: {size} was {then[size]}, is {now[size]}")
        if then["discriminantCount"]:
            self.same(where, "discriminantOffset", then["discriminantOffset"], now["discriminantOffset"])
        fields = {field["name"]: field for field in now.get("fields", [])}
        for field in then.get("fields", []):
            inside = f"{where}.{field['name']}"
            if field["name"] in fields:
                self.field(inside, field, fields[field["name"]])
            else:
                place = [other["name"] for other in fields.values()
                         if "slot" in field and other["ordinal"] == field["ordinal"]]
                self.say(f"{inside}: gone" + (f"; its number has {place[0]} now" if place else ""))

    def field(self, where, then, now):
        self.annotations(where, then, now)
        self.same(where, "the number", number(then), number(now))
        self.same(where, "the number in its union", then["discriminantValue"], now["discriminantValue"])
        if ("group" in then) != ("group" in now):
            self.say(f"{where}: is {'no' if 'group' in then else 'a'} group now")
        elif "group" in then:
            self.struct(where, self.then.nodes[then["group"]["typeId"]]["struct"],
                        self.now.nodes[now["group"]["typeId"]]["struct"])
        else:
            self.same(where, "the type", self.then.type(then["slot"]["type"]), self.now.type(now["slot"]["type"]))
            self.same(where, "the place", then["slot"]["offset"], now["slot"]["offset"])
            self.same(where, "the default", then["slot"].get("defaultValue"), now["slot"].get("defaultValue"))

    def enum(self, where, then, now):
        self.numbered(where, [each["name"] for each in then.get("enumerants", [])],
                      [each["name"] for each in now.get("enumerants", [])])

    def interface(self, where, then, now):
        methods = then.get("methods", []), now.get("methods", [])
        self.numbered(where, *[[method["name"] for method in each] for each in methods])
        self.same(where, "what it extends", then.get("superclasses", []), now.get("superclasses", []))
        present = {method["name"]: method for method in methods[1]}
        for method in methods[0]:
            if method["name"] not in present:
                continue
            other = present[method["name"]]
            self.annotations(f"{where}.{method['name']}", method, other)
            for part, what in (("paramStructType", "parameters"), ("resultStructType", "results")):
                inside = f"{where}.{method['name']} {what}"
                of_then, of_now = self.then.nodes[method[part]], self.now.nodes[other[part]]
                named = not of_then["displayName"].rpartition(":")[2].count("$")
                if named:
                    self.same(inside, "the type", self.then.name(method[part]), self.now.name(other[part]))
                else:
                    self.struct(inside, of_then["struct"], of_now["struct"])

    def numbered(self, where, then, now):
        for index, name in enumerate(then):
            if name in now:
                self.same(f"{where}.{name}", "the number", index, now.index(name))
            else:
                self.say(f"{where}.{name}: gone" + (f"; its number has {now[index]} now" if index < len(now) else ""))

    def const(self, where, then, now):
        self.same(where, "the type", self.then.type(then["type"]), self.now.type(now["type"]))
        (_, before), = then["value"].items()
        (_, after), = now["value"].items()
        if not (where.endswith("Minor") and after >= before):
            self.same(where, "the value", before, after)

    def annotation(self, where, then, now):
        self.same(where, "the type", self.then.type(then["type"]), self.now.type(now["type"]))
        for target, may in then.items():
            if may is True and not now[target]:
                self.say(f"{where}: {target} no more")


def number(field):
    ordinal = field["ordinal"]
    return f"@{ordinal['explicit']}" if "explicit" in ordinal else "none"


def compare(then, now, include):
    """Sentences about what changed between the schemas of two folders; none if all of `then` is still there."""
    return Comparison(Schemas(then, include), Schemas(now, include)).all()
