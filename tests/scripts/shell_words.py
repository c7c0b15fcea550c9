"""The names of the programs that a shell script starts: the first words of its commands, as far as they stand there as
they are. What a variable stands for, and what is said to another shell in quotes, is not looked into."""
import re

# After these the next word is the name of a command again.
GOES_ON = {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time"}
# Programs and builtins that start what stands behind their options; `step` is a function of scripts/.
STARTERS = {"exec", "command", "env", "nice", "nohup", "timeout", "setsid", "setpriv", "unshare", "nsenter", "xargs",
            "flock", "sudo", "step", "chroot"}
NAMES_FIRST = {"step": 1, "flock": 1, "chroot": 1}  # words before the program that are no options
SPACE = " \t"
OPERATORS = ";&|\n"


class Reader:
    def __init__(self, text):
        self.text = text
        self.at = 0
        self.names = []
        self.functions = set()
        self.heredocs = []

    def peek(self, count=1):
        return self.text[self.at:self.at + count]

    def go_behind(self, text):
        """Or to the end, where what is read is no script after all."""
        found = self.text.find(text, self.at)
        self.at = found + len(text) if found >= 0 else len(self.text)

    def go_over(self, pattern):
        self.at = re.compile(pattern).match(self.text, self.at).end()

    def skip_quoted(self, close):
        """Up to `close`; what is substituted in between is read. True if something is."""
        substituted = False
        while self.at < len(self.text):
            char = self.peek()
            if char == close:
                self.at += 1
                return substituted
            if char == "\\":
                self.at += 2
            elif self.peek(2) in ("$(", "${"):
                self.substitution()
                substituted = True
            elif char == "'" and close == "}":
                self.at += 1
                self.go_behind("'")
            elif char == '"' and close == "}":
                self.at += 1
                self.skip_quoted('"')
            else:
                substituted = substituted or char == "$"
                self.at += 1
        return substituted

    def substitution(self):
        if self.peek(3) == "$((":
            self.go_behind("))")
        elif self.peek(2) == "${":
            self.at += 2
            self.skip_quoted("}")
        else:
            self.at += 2
            self.commands(")")

    def word(self):
        """The next word; None if it is not there as it stands. Nothing, if there is none."""
        literal, known = "", True
        while self.at < len(self.text):
            char = self.peek()
            begin = self.at + 1
            if char in SPACE + OPERATORS + "()<>":
                break
            if char == "\\":
                literal += self.text[begin:begin + 1]
                self.at += 2
            elif char == "'":
                self.at += 1
                self.go_behind("'")
                literal += self.text[begin:self.at - 1]
            elif char == '"':
                self.at += 1
                known = not self.skip_quoted('"') and known
                literal += self.text[begin:self.at - 1]
            elif self.peek(2) in ("$(", "${"):
                self.substitution()
                known = False
            else:
                known = known and char != "$"
                literal += char
                self.at += 1
        return literal if known else None

    def redirection(self):
        if self.peek(2) in ("<(", ">("):
            self.at += 2
            self.commands(")")
            return
        begin = self.at
        self.go_over(r"[<>]+[&|-]?")
        operator = self.text[begin:self.at]
        self.go_over(r"[ \t]*")
        target = self.word()
        if operator.startswith("<<") and not operator.startswith("<<<"):
            self.heredocs.append(target or "")

    def skip_heredocs(self):
        for end in self.heredocs:
            found = re.compile(rf"^\t*{re.escape(end)}$", re.M).search(self.text, self.at)
            self.at = found.end() if found else len(self.text)
        self.heredocs = []

    def commands(self, close=""):
        """Commands up to the closing bracket, or to the end."""
        words = []

        def end_command():
            self.started(words)
            words.clear()

        while self.at < len(self.text):
            char = self.peek()
            if char == close:
                self.at += 1
                break
            if char == "\n":
                end_command()
                self.at += 1
                self.skip_heredocs()
            elif self.peek(2) == "\\\n":
                self.at += 2
            elif char in SPACE:
                self.at += 1
            elif char == "#":
                self.go_over(r"[^\n]*")
            elif self.peek(2) == ";;":
                end_command()
                self.at += 2
                self.skip_pattern()
            elif char in OPERATORS:
                end_command()
                self.at += 1
            elif char in "<>":
                self.redirection()
            elif self.peek(2) == "((" and words in ([], ["for"]):
                self.go_behind("))")
            elif self.peek(2) == "()" and words and not (words[-1] or "").endswith("="):
                self.functions.add(words.pop())
                self.at += 2
            elif char == "(":
                self.at += 1
                if words and (words[-1] or "").endswith("="):
                    self.skip_array()
                else:
                    self.commands(")")
            elif char == ")":
                self.at += 1  # of no bracket: what is read is no script
            else:
                word = self.word()
                if not (word or "").isdigit() or self.peek() not in ("<", ">"):
                    words.append(word)
                    self.keyword(words)
        end_command()

    def skip_array(self):
        while self.at < len(self.text) and self.peek() != ")":
            if self.peek() == "#":
                self.go_over(r"[^\n]*")
            elif self.peek() in SPACE + OPERATORS + "(<>":
                self.at += 1
            else:
                self.word()
        self.at += 1

    def skip_pattern(self):
        """The pattern of a case, with the bracket behind it."""
        self.go_over(r"(\s|#.*\n)*")
        if self.peek(4) == "esac":
            return
        while self.at < len(self.text) and self.peek() != ")":
            if self.peek() in SPACE + OPERATORS + "(<>":
                self.at += 1
            else:
                self.word()
        self.at += 1

    def keyword(self, words):
        if words == ["[["]:
            self.go_behind("]]")
        elif len(words) == 1 and words[0] in GOES_ON:
            words.clear()
        elif len(words) == 3 and words[0] == "case" and words[2] == "in":
            words.clear()
            self.skip_pattern()

    def started(self, words):
        words = list(words)
        while words and words[0] is not None and re.match(r"\w+\+?=", words[0]):
            words.pop(0)
        if not words or not words[0] or words[0] in ("for", "case"):
            return
        self.names.append(words[0])
        if words[0] not in STARTERS or words[1:2] in (["-v"], ["-V"]):
            return
        rest = words[1:]
        if "--" in rest:
            rest = rest[rest.index("--") + 1:]
        else:
            rest = [word for word in rest if word is None or not re.match(r"-|\d|\w+=", word)]
            rest = rest[NAMES_FIRST.get(words[0], 0):]
        self.started(rest)


def programs(text):
    """(names of commands, names of functions) of a script."""
    reader = Reader(text)
    reader.commands()
    return reader.names, reader.functions
