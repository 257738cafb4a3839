"""Token streams: the tokens of documents of any size, of which only as much is read as is asked for."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from outlier_features.errors import SourceError
from outlier_features.text.safe_cuts import CannotCut, Cut, Cuts, Encoded

SEPARATOR = "\n\n"
"""Joins the documents of a corpus."""

PIECE = 1 << 15
"""Characters that are encoded at once."""
OVERLAP = 256
"""Characters before a cut that the next piece begins with."""
TRIES = 64
"""Safe cuts that are tried as places to go on from before a piece grows."""
LARGE = 1_000_000
"""Characters in one piece from which on it is said that it takes memory."""
LARGEST = 32_000_000
"""Characters that are encoded in one piece where there is no safe cut; they take about 8 GB."""

NO_PLACE = "the text offers no safe place for a cut"


class Encoder:
    """A tokenizer without what it adds to a text, and without trimming spaces from the places of tokens."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """Copy a fast tokenizer of transformers; `name` stands for it in errors."""
        original = tokenizer.backend_tokenizer
        self._tokenizer = Tokenizer.from_str(original.to_str())
        self._tokenizer.post_processor = None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = original.encode_special_tokens
        self.name = name
        try:
            self._cuts: Cuts | None = Cuts(self._tokenizer)
            self._why_whole = ""
        except CannotCut as reason:
            self._cuts, self._why_whole = None, str(reason)
        self._has_said = False

    def encode(self, text: str) -> Encoded:
        """Return the tokens of a text."""
        return Encoded.of(text, self._tokenizer.encode(text, add_special_tokens=False))

    def cuts(self, found: Encoded, behind: int = 0) -> Iterator[Cut]:
        """Yield where a text whose end is not known can be cut, those far into it first; nowhere where none is safe."""
        return self._cuts.last(found, behind) if self._cuts else iter(())

    def require_room(self, text: str) -> None:
        """Refuse a text too large to be encoded in one piece. Raises SourceError."""
        words = f"{self.name}: has to encode a document in one piece, because {self._why_whole or NO_PLACE}"
        if len(text) > LARGEST:
            raise SourceError(f"{words}, and it has more than {LARGEST:,} characters; divide it into several.")
        if len(text) > LARGE and not self._has_said:
            self._has_said = True
            tqdm.write(f"{words}; it has more than {LARGE:,} characters, and a million take about 0.25 GB")


class Unread:
    """A document that comes in pieces of any size, read as far as it is asked for."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces, self._piece, self._at = iter(pieces), "", 0

    def read(self, count: int) -> str:
        """Return the next characters, fewer than `count` only at the end."""
        parts: list[str] = []
        while count > 0 and not self.is_done():
            parts.append(self._piece[self._at : self._at + count])
            self._at += len(parts[-1])
            count -= len(parts[-1])
        return "".join(parts)

    def rest(self) -> Iterator[str]:
        """Yield what has not been read, in pieces."""
        while not self.is_done():
            yield self.read(PIECE)

    def is_done(self) -> bool:
        """Say whether everything has been read."""
        while self._at == len(self._piece):
            if (piece := next(self._pieces, None)) is None:
                return True
            self._piece, self._at = piece, 0
        return False


def tokens(documents: Iterable[Iterable[str]], encoder: Encoder) -> Iterator[tuple[int, int]]:
    """Yield each token of the documents with the UTF-8 bytes it adds; they sum up to the bytes of the text.

    A document comes in pieces, and behind it stands SEPARATOR; one without a character is none. The tokens are those of
    the whole document, whatever its size.
    """
    for pieces in documents:
        document = Unread(pieces)
        if not document.is_done():
            yield from _of_document(Unread(chain(document.rest(), [SEPARATOR])), encoder)


def _of_document(document: Unread, encoder: Encoder) -> Iterator[tuple[int, int]]:
    found, since = encoder.encode(document.read(PIECE)), Cut(0, 0)
    begin: int | None = 0
    while not document.is_done():
        more = document.read(PIECE)
        joined = None if begin is None else _joined(found, more, since, encoder)
        if joined is None:  # no safe cut, so the piece grows to twice its length at least
            text = found.text + more + document.read(len(found.text) - len(more))
            encoder.require_room(text)
            found = encoder.encode(text)
            begin = found.token_at(since, 0) if since.place else 0
        else:
            cut, start, following = joined
            yield from _with_bytes(found, begin, found.token_at(cut, 0), since.end)
            since = cut.shifted(-start)
            found, begin = following, following.token_at(since, 0)
    assert begin is not None, "a safe cut is one in the whole text too"
    yield from _with_bytes(found, begin, None, since.end)


def _joined(found: Encoded, more: str, since: Cut, encoder: Encoder) -> tuple[Cut, int, Encoded] | None:
    """Return a safe cut, where the text begins that takes it in and goes on, and that text encoded; None if none is."""
    for cut in islice(encoder.cuts(found, since.place), TRIES):
        start = max(0, cut.place - OVERLAP)
        if encoder.encode(found.text[start : cut.place + OVERLAP]).token_at(cut, start) is None:
            continue
        following = encoder.encode(found.text[start:] + more)
        if following.token_at(cut, start) is not None:
            return cut, start, following
    return None


def _with_bytes(found: Encoded, begin: int | None, stop: int | None, since: int) -> Iterator[tuple[int, int]]:
    widths = bytes_added(found.text, found.offsets[begin:stop, 1], since)
    yield from zip(found.ids[begin:stop], widths, strict=True)


def bytes_added(text: str, ends: np.ndarray, since: int = 0) -> list[int]:
    """Return the UTF-8 bytes by which each token takes the text further than `since`; none for a special one."""
    furthest = np.maximum.accumulate(np.concatenate([[since], ends]).astype(np.int64))
    return np.diff(_bytes_before(text)[furthest]).tolist()


def _bytes_before(text: str) -> np.ndarray:
    """Return the UTF-8 length of each prefix of a text, the empty one first."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(widths)])
