"""The windows of the 2025 sweep: texts that overlap by half, each encoded anew."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from outlier_features.errors import SourceError
from outlier_features.text.token_stream import Encoder, Unread, bytes_added
from outlier_features.text.windows import too_short

CHARACTERS_A_TOKEN = 8
"""How much of a long document is taken at first for each token that is wanted of it."""
NOT_KNOWN = 64
"""Characters at the end of a decoded text that more tokens behind it could change."""


def rows(
    documents: Iterable[Iterable[str]], tokenizer: Any, encoder: Encoder, sequences: int, length: int
) -> list[Mapping[str, Any]]:
    """Encode the text of each window as the tokenizer does by default: BOS included, and not always `length` tokens.

    Every window scores all of its tokens, those it shares with the one before too. Raises SourceError if there are
    fewer windows than asked for.
    """
    found: list[Mapping[str, Any]] = []
    texts = islice(_texts(documents, tokenizer, encoder, sequences, length), sequences)
    for index, text in enumerate(tqdm(texts, desc="cutting windows", unit="window", total=sequences)):
        encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids, ends = encoding["input_ids"], np.array([end for _, end in encoding["offset_mapping"]], np.int64)
        if len(ids) < 2:
            raise SourceError(
                f"window {index} of the corpus, encoded anew, has {len(ids)} tokens and nothing to predict; "
                "choose a greater length."
            )
        found.append({"window": index, "token_ids": ids, "token_bytes": bytes_added(text, ends), "scored_from": 1})
    if len(found) < sequences:
        raise too_short(len(found), length, sequences)
    return found


def _texts(
    documents: Iterable[Iterable[str]], tokenizer: Any, encoder: Encoder, wanted: int, length: int
) -> Iterator[str]:
    """Yield the texts of the windows: pieces of `length` tokens that overlap by half.

    The buffer is text, as it was there: what is left of it is decoded after each window and encoded anew for the next,
    and cutting inside a word or a character can change a token. A buffer is done with once less than a window is left.
    Of a long document only the start is taken, if that is enough for what is still wanted.
    """
    buffer = ""
    for pieces in documents:
        document = Unread(pieces)
        buffer += " " + document.read(CHARACTERS_A_TOKEN * length * (wanted + 2))
        while not document.is_done():
            if (enough := _of_start(buffer, tokenizer, encoder, wanted, length)) is not None:
                yield from enough
                return
            buffer += document.read(len(buffer))
            encoder.require_room(buffer)
        ids = left = _ids(buffer, tokenizer)
        while len(left) >= length:
            yield tokenizer.decode(ids[:length], skip_special_tokens=True)
            wanted -= 1
            left = ids[length // 2 :]
            buffer = tokenizer.decode(left, skip_special_tokens=True)
            if len(left) >= length:
                ids = _ids(buffer, tokenizer)


def _of_start(buffer: str, tokenizer: Any, encoder: Encoder, wanted: int, length: int) -> list[str] | None:
    """Return the texts of all windows wanted, if they follow from the start of a buffer, whatever comes behind it.

    Only tokens before a safe cut are taken, and of what they decode to only what tokens behind them do not change.
    """
    found: list[str] = []
    while len(found) < wanted:
        encoded = encoder.encode(buffer)
        cut = next(encoder.cuts(encoded), None)
        known = encoded.token_at(cut, 0) if cut else None
        if known is None or known < length:
            return None
        found.append(tokenizer.decode(encoded.ids[:length], skip_special_tokens=True))
        buffer = tokenizer.decode(encoded.ids[length // 2 : known], skip_special_tokens=True)[:-NOT_KNOWN]
    return found


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
