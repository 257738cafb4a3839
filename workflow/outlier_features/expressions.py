"""Expressions: how far ahead a regular expression of a tokenizer can look, and which characters it holds together."""

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


class UnknownSyntax(Exception):
    """An expression that uses more than SYNTAX, or repeats a group without limit; holds the expression."""


class Expression:
    """A regular expression as a sequence of classes of characters, some repeated without limit."""

    def __init__(self, pattern: str) -> None:
        """Take an expression apart. Raises UnknownSyntax."""
        self._pattern = pattern
        self._atoms: list[str] = []
        self._repeated: set[str] = set()
        self._bounded = 0
        place, last = 0, ""
        while place < len(pattern):
            part = SYNTAX.match(pattern, place)
            if part is None:
                raise UnknownSyntax(pattern)
            last = self._take(part, last)
            place = part.end()
        self._classes = [self._compiled(atom) for atom in dict.fromkeys(self._atoms)]
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
                self._bounded += times
            return ""
        if part["open"] or part["bar"] or part["anchor"]:
            return ""
        if part["close"]:
            return ")"
        self._atoms.append(part[0])
        self._bounded += 1
        return part[0]

    def may_hold(self, before: str, behind: str) -> bool:
        """Say whether one match can hold two neighbouring characters."""
        if len(self._atoms) == 1 and self._bounded == 1 and not self._repeated:
            return False
        return all(any(atom.match(character) for atom in self._classes) for character in (before, behind))

    def reach(self, text: str, place: int) -> int | None:
        """Return how far a match that began before `place` can have looked, None where that is beyond the text.

        Each class that is repeated goes at most to the next character it does not have; it is not known which of them
        come one after another, so the furthest is taken as often as there are classes.
        """
        for _ in self._atoms if self._others else ():
            found = [other.search(text, place + self._bounded) for other in self._others]
            if not all(found):
                return None
            place = max(each.end() for each in found if each is not None)
        return place + self._bounded + 1

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
