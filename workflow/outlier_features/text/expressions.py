"""Expressions: how far ahead a regular expression of a tokenizer can look, and which characters it holds together."""

from itertools import chain

import regex

SYNTAX = regex.compile(
    r"""
    (?P<set>\[(?:\\.|[^\[\]\\]|(?&set))*\])
    |(?P<property>\\[pP](?:\{\^?\w+\}|[A-Z]))
    |(?P<anchor>\\[bBAzZ]|[\^$])
    |(?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[sSdDwWrntvf]|[^\w]))
    |(?P<open>\(\?(?:i?:|>|[=!])|\((?!\?))
    |(?P<close>\))
    |(?P<quantifier>[*+?][?+]?|\{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\}\??)
    |(?P<bar>\|)
    |(?P<literal>[^\\\[\](){}*+?])
    """,
    regex.VERBOSE | regex.DOTALL,
)
"""The parts of an expression that are understood: no back references, no looking behind, no named groups."""


SPARE = 2
"""Times more that a class is taken to repeat, as two libraries may not agree on a rare character."""


class UnknownSyntax(Exception):
    """An expression that uses more than SYNTAX, or repeats a group without limit; holds the expression."""


class Expression:
    """A regular expression as a sequence of classes of characters, some repeated without limit."""

    def __init__(self, pattern: str) -> None:
        """Take an expression apart. Raises UnknownSyntax."""
        self._pattern = pattern
        self._repeated: set[str] = set()
        self._alternatives: list[list[str]] = [[]]
        self._bounded = [0]
        self._depth = 0
        place, last = 0, ""
        while place < len(pattern):
            part = SYNTAX.match(pattern, place)
            if part is None:
                raise UnknownSyntax(pattern)
            last = self._take(part, last)
            place = part.end()
        self._classes = [self._compiled(atom) for atom in {*chain.from_iterable(self._alternatives)}]
        self._others = [self._compiled(rf"(?!{atom})(?s:.)") for atom in sorted(self._repeated)]

    def _take(self, part: regex.Match, last: str) -> str:
        """Take one part that follows `last`; return what the next may quantify."""
        if part["quantifier"]:
            times = _times(part)
            if not last or (last == ")" and times != 1):
                raise UnknownSyntax(self._pattern)
            if times is None:
                self._repeated.add(last)
            elif last != ")":
                self._bounded[-1] += times
            return ""
        if part["bar"] and not self._depth:
            self._alternatives.append([])
            self._bounded.append(0)
        self._depth += bool(part["open"]) - bool(part["close"])
        if part["close"]:
            return ")"
        if part["open"] or part["bar"] or part["anchor"]:
            return ""
        self._alternatives[-1].append(part[0])
        self._bounded[-1] += 1
        return part[0]

    def may_hold(self, before: str, behind: str) -> bool:
        """Say whether one match can hold two neighbouring characters."""
        if sum(self._bounded) == 1 and not self._repeated:
            return False
        return all(any(atom.match(character) for atom in self._classes) for character in (before, behind))

    def reach(self, text: str, place: int) -> int | None:
        """Return how far a match that began before `place` can have looked, None where that is beyond the text.

        Each class that is repeated goes at most to the next character it does not have; which of them come one after
        another is not looked at, so the furthest is taken as often as there are classes in any alternative, and SPARE
        times more.
        """
        ahead = max(self._bounded)
        for _ in range(max(map(len, self._alternatives)) + SPARE if self._others else 0):
            found = [other.search(text, place + ahead) for other in self._others]
            if not all(found):
                return None
            place = max(each.end() for each in found if each is not None)
        return place + ahead + 1

    def _compiled(self, pattern: str) -> regex.Pattern:
        # case is ignored in all of it where it is in a part, which makes classes larger and never smaller
        try:
            return regex.compile(pattern, regex.VERSION1 | (regex.IGNORECASE if "(?i" in self._pattern else 0))
        except regex.error as error:
            raise UnknownSyntax(self._pattern) from error


def _times(part: regex.Match) -> int | None:
    """Return how often a quantifier repeats at most, None for no limit."""
    if part["quantifier"][0] != "{":
        return 1 if part["quantifier"][0] == "?" else None
    if part["high"]:
        return int(part["high"])
    return None if part["comma"] else int(part["low"])
