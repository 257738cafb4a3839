"""Safe cuts: where a text can be cut so that the tokens before are those of the whole, whatever comes behind.

A tokenizer works in steps: added tokens are taken out, the rest is normalized, split into words, and each word becomes
tokens on its own. A cut between two words is safe when no step can reach over it:

- Normalization begins anew at the character behind the cut (printable ASCII, kana, a CJK ideograph), and neither an
  added token nor a replacement of the normalizer can hold both characters beside the cut.
- A splitter that looks at two neighbours only decides the same in any text. One that is an expression scans from left
  to right, so it goes on from a cut as from the start of a text; what it chose before could have looked ahead, but only
  as far as `Expression.reach` says, and that far the text has to be at hand.

A tokenizer that splits no words and merges pairs (BPE as made by SentencePiece) is cut between two tokens. Merges are
taken by rank, the leftmost first, so a boundary that no merge crosses parts the text: the tokens of a part between two
boundaries are those of the part alone. A token that two overlapping texts share therefore joins their tokens to those
of the whole text. Any text has a boundary within the length of the longest token, so a boundary that stands for each
end within that length behind it stands for every text that begins in this way.

Texts of tokenizers with other kinds of normalizers, splitters and models are not cut; CannotCut says which.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import regex
from tokenizers import Encoding, Tokenizer

from outlier_features.text.expressions import Expression, UnknownSyntax

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the splitter ByteLevel scans for; the format of tokenizer.json fixes it."""

BEGINS_ANEW = regex.compile("[\t\n -~、-〟ぁ-ゖァ-ヺ㐀-䶿一-鿿]")
"""Characters that no normalization joins to what stands before them."""

NEIGHBOURS = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation", "Digits", "CharDelimiterSplit")
"""Splitters that look at two neighbouring characters."""
NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "Prepend", "BertNormalizer")
"""Normalizers that work character by character, or at the ends of a text."""
MARGIN = 16
"""Characters at the start of a text that are not cut: what a tokenizer puts before a text changes them."""


class CannotCut(Exception):
    """A tokenizer of a kind whose texts have to be encoded whole; says which part of it is the reason."""


@dataclass(frozen=True)
class Encoded:
    """A text and its tokens."""

    text: str
    ids: list[int]
    offsets: np.ndarray
    """First character and the one behind the last, of each token."""
    words: np.ndarray
    """The word of each token."""

    @classmethod
    def of(cls, text: str, encoding: Encoding) -> "Encoded":
        """Take what the tokenizer returned for a text."""
        words = [-1 if word is None else word for word in encoding.word_ids]
        return cls(text, encoding.ids, np.array(encoding.offsets, np.int64).reshape(-1, 2), np.array(words, np.int64))

    def token_at(self, cut: "Cut", start: int) -> int | None:
        """Return the token that begins at a cut, where this text begins at `start`; None if it is not cut there."""
        found = int(np.searchsorted(self._starts, cut.place - start))
        if not 0 < found < len(self.ids):
            return None
        same = self.offsets[found, 0] == cut.place - start and self.offsets[found - 1, 1] == cut.end - start
        if cut.following is None:
            same = same and self.words[found] != self.words[found - 1]
        else:
            same = same and self.offsets[found, 1] == cut.following - start
            same = same and found + 1 < len(self.ids) and self.offsets[found + 1, 0] == self.offsets[found, 1]
        return found if same else None

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.maximum.accumulate(self.offsets[:, 0])


@dataclass(frozen=True)
class Cut:
    """A safe cut of a text, in characters: where the token behind begins, and where the one before ends."""

    place: int
    end: int
    following: int | None = None
    """Where the token behind ends, if it is what joins the texts."""

    def shifted(self, by: int) -> "Cut":
        """Return the cut in a text that begins earlier by so many characters."""
        return Cut(self.place + by, self.end + by, None if self.following is None else self.following + by)


class Cuts:
    """The safe cuts of texts for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look at what the tokenizer does. Raises CannotCut where nothing is known of a part of it."""
        steps = json.loads(tokenizer.to_str())
        self._encode = lambda text: Encoded.of(text, tokenizer.encode(text, add_special_tokens=False))
        self._inside_added = _pairs_of(steps["added_tokens"])
        self._longest_added = max((len(token["content"]) for token in steps["added_tokens"]), default=0)
        self._replacements = [_replacement(step) for step in _flat(steps["normalizer"], "normalizers")]
        stages = _flat(steps["pre_tokenizer"], "pretokenizers")
        self._splitters = [splitter for stage in stages if (splitter := _splitter(stage))]
        self._cuts_words = bool(self._splitters)
        if steps["model"].get("dropout"):
            raise CannotCut("its merges are dropped at random")
        if not self._cuts_words:
            _require_joints(steps)
            self._longest = max([self._longest_added, *map(len, steps["model"]["vocab"])])

    def last(self, found: Encoded, behind: int = 0) -> Iterator[Cut]:
        """Yield the safe cuts of a text whose end is not known, those far into it first, none before `behind`."""
        # what is last can become part of an added token, which takes the spaces before it along
        end = len(found.text[: max(0, len(found.text.rstrip()) - self._longest_added)].rstrip())
        tokens = self._word_starts(found) if self._cuts_words else self._joints(found)
        starts = found.offsets[tokens, 0]
        tokens = tokens[(starts > behind + MARGIN) & (starts < end - 1)]
        tokens = tokens[: self._known(found, tokens, end)]
        for token in tokens[::-1]:
            place, before = int(found.offsets[token, 0]), int(found.offsets[token - 1, 1])
            if not self._parts(found.text[place - 1], found.text[place]):
                continue
            cut = Cut(place, before, None if self._cuts_words else int(found.offsets[token, 1]))
            if self._cuts_words or self._stands(found, cut):
                yield cut

    def _word_starts(self, found: Encoded) -> np.ndarray:
        starts_later = found.offsets[1:, 0] >= found.offsets[:-1, 1]
        return 1 + np.flatnonzero((np.diff(found.words) != 0) & starts_later)

    def _joints(self, found: Encoded) -> np.ndarray:
        """Return the tokens whose both ends are ends of characters."""
        meet = found.offsets[1:, 0] == found.offsets[:-1, 1]
        return 1 + np.flatnonzero(meet[:-1] & meet[1:])

    def _known(self, found: Encoded, tokens: np.ndarray, end: int) -> int:
        """Return how many of the tokens begin so early that everything has been read that could change them."""
        expressions = [step for step in (*self._replacements, *self._splitters) if isinstance(step, Expression)]

        def is_known(token: int) -> bool:
            place = int(found.offsets[token, 0])
            reached = [expression.reach(found.text, place) for expression in expressions]
            return all(each is not None and each <= end for each in reached)

        low, high = 0, len(tokens)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if is_known(tokens[middle]) else (low, middle)
        return low

    def _parts(self, before: str, behind: str) -> bool:
        """Say whether every step begins anew between two characters, if they belong to two words."""
        if not BEGINS_ANEW.match(behind) or not _is_stable(before) or (before + behind).lower() in self._inside_added:
            return False
        if any(step is not None and step.may_hold(before, behind) for step in self._replacements):
            return False
        within = 0
        for splitter in self._splitters:
            if isinstance(splitter, Expression):
                within += splitter.may_hold(before, behind)
            elif splitter(before + behind):  # what comes later begins anew here, if nothing earlier went over it
                return not within
        return within <= 1  # if only one could go over it, that one made the boundary

    def _stands(self, found: Encoded, cut: Cut) -> bool:
        """Say whether a boundary of tokens stands wherever the text ends behind it."""
        start, first = max(0, cut.place - 8 * self._longest), int(cut.following or 0) + 1
        ends = range(first, first + self._longest + 2)
        if ends[-1] > len(found.text) or regex.search(r"\s\s", found.text[first : ends[-1]]):
            return False  # an added token can take any number of spaces along
        return all(self._encode(found.text[start:end]).token_at(cut, start) is not None for end in ends)


def _flat(step: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a normalizer or of a splitter of words."""
    if step is None:
        return
    if step["type"] == "Sequence":
        for each in step[name]:
            yield from _flat(each, name)
    else:
        yield step


def _replacement(step: Mapping[str, Any]) -> Expression | None:
    """Return what a normalizer replaces, None if it works character by character."""
    if step["type"] == "Replace":
        return _expression(step["pattern"])
    if step["type"] not in (*NORMALIZERS, "Precompiled", "ByteLevel"):
        raise CannotCut(f"of its normalizer {step['type']}")
    return None


def _splitter(step: Mapping[str, Any]) -> "Expression | Callable[[str], bool] | None":
    """Return how a step splits words: an expression, a rule for two neighbours, or not at all."""
    kind = step["type"]
    if kind == "ByteLevel":
        return _expression({"Regex": GPT2}) if step.get("use_regex", True) else None
    if kind == "Split":
        return _expression(step["pattern"])
    if kind == "Metaspace":
        return _rule(step) if step.get("split", True) else None
    if kind in NEIGHBOURS:
        return _rule(step)
    raise CannotCut(f"of its splitter {kind}")


def _expression(pattern: Mapping[str, str]) -> Expression:
    try:
        return Expression(pattern["Regex"] if "Regex" in pattern else regex.escape(pattern["String"]))
    except UnknownSyntax as error:
        raise CannotCut(f"of its expression {error}") from error


def _rule(step: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return whether a splitter parts two neighbouring characters, or drops one of them, as it says itself."""
    steps = {"type": "Sequence", "pretokenizers": [step]}
    tokenizer = Tokenizer.from_str(json.dumps({**EMPTY, "pre_tokenizer": steps}))

    def parts(pair: str) -> bool:
        return [offsets for _, offsets in tokenizer.pre_tokenizer.pre_tokenize_str(pair)] != [(0, 2)]

    return parts


EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""}}


def _pairs_of(added: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the pairs of neighbouring characters that can lie inside an added token, in lower case."""
    pairs: set[str] = set()
    for token in added:
        content = token["content"].lower()
        pairs |= {content[place : place + 2] for place in range(len(content) - 1)}
        for space in "\t\n\r\v\f " if content and (token["lstrip"] or token["rstrip"]) else "":
            pairs |= {space + other for other in "\t\n\r\v\f "}
            pairs |= {space + content[0]} if token["lstrip"] else set()
            pairs |= {content[-1] + space} if token["rstrip"] else set()
    return pairs | {pair.replace("▁", " ") for pair in pairs}


def _is_stable(character: str) -> bool:
    """Say whether normalization leaves a character as it is, but for its case, and joins nothing behind to it."""
    if character in "\t\n":
        return True
    return unicodedata.category(character)[0] in "LNPSZ" and unicodedata.is_normalized("NFKC", character)


def _require_joints(steps: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that splits no words and is no BPE whose tokens end where characters do."""
    model = steps["model"]
    if model["type"] != "BPE":
        raise CannotCut(f"its model {model['type']} sees a text without words")
    if model.get("fuse_unk") and not model.get("byte_fallback"):
        raise CannotCut("it makes one token of any number of unknown characters")
    normalizers = list(_flat(steps["normalizer"], "normalizers"))
    kinds = [step["type"] for step in (*normalizers, *_flat(steps["pre_tokenizer"], "pretokenizers"))]
    if others := sorted({*kinds} - {"Prepend", "Replace", "Metaspace"}):
        raise CannotCut(f"of {', '.join(others)} without words")
    for step in normalizers:
        if step["type"] == "Replace" and (len(step["pattern"].get("String", "")), len(step["content"])) != (1, 1):
            raise CannotCut("of a replacement that is not one character for one, without words")
