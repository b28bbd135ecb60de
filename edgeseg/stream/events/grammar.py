"""The text of a rule, such as `share(water) > 30 % in gate for 5 s`, and what it means.

    when     :=  amount "in" ZONE [ "for" DURATION ]
    amount   :=  "share" "(" CLASS { "+" CLASS } ")" compared
              |  [ "no" ] CLASS { "+" CLASS }
    clear    :=  [ compared ] [ "for" DURATION ]
    compared :=  ( ">" | ">=" | "<" | "<=" ) NUMBER "%"
    DURATION :=  NUMBER ( "ms" | "s" | "m" | "min" | "h" )

A share is of the zone's pixels. `person in track` means more than PRESENT of it, and `no person in track` at most that.
A name with spaces, or one that is a word of the grammar, stands in quotes: "traffic light".
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

from edgeseg.errors import OptionError

PRESENT = 0.001
LONGEST = 86400.0
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
KEYWORDS = ("share", "in", "for", "no")
EXAMPLES = 'Expected something like "share(water) > 30 % in gate for 5 s" or "person in track for 0.5 s".'
CLEAR_EXAMPLES = 'Expected something like "< 25 % for 10 s" or "for 10 s".'
TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>\d+(?:\.\d*)?|\.\d+) | (?P<operator>[<>]=?) | (?P<mark>[()+%])
    | "(?P<double>[^"]+)" | '(?P<single>[^']+)' | (?P<word>[^\W\d][\w-]*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Comparison:
    """A share (0 to 1) that is above or below a limit."""

    sign: str
    limit: float

    def holds(self, share: float) -> bool:
        return bool(COMPARE[self.sign](share, self.limit))

    @property
    def upward(self) -> bool:
        return self.sign[0] == ">"

    def opposite(self) -> Comparison:
        """What holds exactly where this one does not."""
        return Comparison({">": "<=", ">=": "<", "<": ">=", "<=": ">"}[self.sign], self.limit)

    def __str__(self) -> str:
        return f"{self.sign} {100 * self.limit:g} %"


@dataclass(frozen=True)
class Condition:
    """The classes that together have a share of the zone, what the share must be, and for how many seconds."""

    classes: tuple[str, ...]
    compared: Comparison
    zone: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Clear:
    """When an event ends; None: as the condition that began it says."""

    compared: Comparison | None = None
    seconds: float | None = None


def parse_when(text: str, where: str) -> Condition:
    """OptionError, which names `where` the text stands, for anything that is no condition."""
    reader = _Reader(text, where, EXAMPLES)
    if reader.take_word("share"):
        reader.expect("(")
        classes = reader.classes()
        reader.expect(")")
        compared = reader.compared()
        if compared is None:
            raise reader.error("a comparison such as > 30 %")
    else:
        absent = reader.take_word("no")
        classes = reader.classes()
        compared = Comparison("<=" if absent else ">", PRESENT)
    reader.expect_word("in")
    zone = reader.name("the name of a zone")
    seconds = reader.duration()
    reader.end()
    return Condition(classes, compared, zone, seconds or 0.0)


def parse_clear(text: str, where: str) -> Clear:
    """OptionError, which names `where` the text stands, for anything that does not say when an event ends."""
    reader = _Reader(text, where, CLEAR_EXAMPLES)
    clear = Clear(reader.compared(), reader.duration())
    if clear == Clear():
        raise reader.error("a comparison such as < 25 %, or for and a time")
    reader.end()
    return clear


@dataclass(frozen=True)
class _Token:
    """`kind`: number, operator, mark, word, quoted, or end; `at`: the column where it starts, from 1."""

    kind: str
    text: str
    at: int


class _Reader:
    """The tokens of a text, taken one after another."""

    def __init__(self, text: str, where: str, hint: str):
        self._text, self._where, self._hint = text, where, hint
        self._tokens = self._split()
        self._next = 0

    def _split(self) -> list[_Token]:
        tokens, at, end = [], 0, len(self._text.rstrip())
        while at < end:
            found = TOKEN.match(self._text, at)
            if not found:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise OptionError(
                    f"{self._where}: column {at + 1} of {self._text!r} is {self._text[at]!r}, which no rule has.",
                    self._hint,
                )
            kind = str(found.lastgroup)
            quoted = kind in ("double", "single")
            start = found.start(kind) - quoted
            tokens.append(_Token("quoted" if quoted else kind, found[kind], start + 1))
            at = found.end()
        return [*tokens, _Token("end", "", end + 1)]

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def error(self, expected: str) -> OptionError:
        token = self._token
        found = "it ends" if token.kind == "end" else f"there is {token.text!r}"
        what = f"{self._where}: expected {expected} at column {token.at} of {self._text!r}, but {found}."
        return OptionError(what, self._hint)

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def take_word(self, word: str) -> bool:
        if self._token.kind == "word" and self._token.text == word:
            self._next += 1
            return True
        return False

    def expect_word(self, word: str) -> None:
        if not self.take_word(word):
            raise self.error(f"{word!r}")

    def expect(self, mark: str) -> None:
        if self._token.text != mark or self._token.kind != "mark":
            raise self.error(f"{mark!r}")
        self._next += 1

    def name(self, what: str) -> str:
        token = self._token
        if token.kind != "quoted" and (token.kind != "word" or token.text in KEYWORDS):
            raise self.error(what)
        return self._take().text

    def classes(self) -> tuple[str, ...]:
        names = [self.name("the name of a class")]
        while self._token.text == "+" and self._token.kind == "mark":
            self._next += 1
            names.append(self.name("the name of a class"))
        return tuple(names)

    def compared(self) -> Comparison | None:
        if self._token.kind != "operator":
            return None
        sign = self._take().text
        if self._token.kind != "number":
            raise self.error("a number of percent")
        percent = float(self._take().text)
        self.expect("%")
        limit = Comparison(sign, percent / 100)
        if limit.holds(0.0) == limit.holds(1.0):
            state = "always" if limit.holds(0.0) else "never"
            raise OptionError(
                f"{self._where}: a share of a zone is {state} {limit}, in {self._text!r}.",
                "Expected a limit that lies between 0 % and 100 %.",
            )
        return limit

    def duration(self) -> float | None:
        if not self.take_word("for"):
            return None
        if self._token.kind != "number":
            raise self.error("a time such as 5 s")
        number = float(self._take().text)
        if self._token.kind != "word" or self._token.text not in SECONDS:
            raise self.error(f"a unit of time ({', '.join(SECONDS)})")
        seconds = number * SECONDS[self._take().text]
        if seconds > LONGEST:
            raise OptionError(f"{self._where}: {self._text!r} lasts over a day.", "Expected a time up to 24 h.")
        return seconds

    def end(self) -> None:
        if self._token.kind != "end":
            raise self.error("its end")
