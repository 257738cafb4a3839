"""Token streams: pieces of a text have the tokens and bytes of the whole, and no more is read than is asked for."""

# Shapes: S sequence (window), T position.

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from corpora import (
    DOCUMENTS,
    LINEAGE,
    byte_level_tokenizer,
    naive_windows,
    save_checkpoint,
    sentencepiece_like_tokenizer,
    stream,
    trimming_tokenizer,
    windows,
)
from corpora import save_checkpoint as save_tokenizer
from long_texts import CUT, SPEECHES, WHOLE, hard_text
from outlier_features.config.entries import Corpus
from outlier_features.errors import SourceError
from outlier_features.text import token_stream
from outlier_features.text.token_stream import Encoder, tokens
from outlier_features.text.tokenize import tokenize
from outlier_features.text.windows import TokenWindows, read_windows
from tokenizers import Tokenizer
from transformers import AutoTokenizer


@pytest.mark.parametrize("build", [byte_level_tokenizer, trimming_tokenizer, sentencepiece_like_tokenizer])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_token_bytes_are_the_utf8_bytes_of_the_text(
    build: Callable[[], Tokenizer], document: str, tmp_path: Path
) -> None:
    tokenizer = build()
    checkpoint = save_checkpoint(tmp_path / "model", tokenizer)
    (tmp_path / "text.txt").write_text(document, encoding="utf-8")
    encoding = tokenizer.encode(f"{document}\n\n", add_special_tokens=False)
    length = len(encoding.ids)
    found = windows(checkpoint, tmp_path / "out", path=str(tmp_path / "text.txt"), sequences=1, length=length)
    assert found.ids_ST.tolist() == [encoding.ids]
    assert found.bytes_ST.min() >= 0
    assert found.bytes_ST.sum() == len(f"{document}\n\n".encode())


def test_token_bytes_of_any_part_are_those_of_the_text_it_covers(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    tokens = stream(checkpoint)
    found = windows(checkpoint, tmp_path / "out", path=str(text), sequences=len(tokens) // 8, length=8)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    so_far = np.cumsum(found.bytes_ST)
    covered = [tokenizer.decode(tokens[: count + 1]) for count in range(len(so_far))]
    whole = [count for count, part in enumerate(covered) if "\ufffd" not in part]  # the rest ends inside a character
    assert len(whole) < len(covered)
    assert [int(so_far[count]) for count in whole] == [len(covered[count].encode()) for count in whole]


def test_documents_without_a_character_add_nothing(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    lines = text.read_text(encoding="utf-8").splitlines()
    gaps = tmp_path / "gaps.jsonl"
    gaps.write_text("\n".join(['{"text": ""}', lines[0], '{"text": ""}', *lines[1:]]), encoding="utf-8")
    cut: dict[str, Any] = {"sequences": 6, "length": 16}
    expected = windows(checkpoint, tmp_path / "expected", path=str(text), **cut)
    found = windows(checkpoint, tmp_path / "found", path=str(gaps), **cut)
    np.testing.assert_array_equal(found.ids_ST, expected.ids_ST)


def test_no_more_text_is_read_than_the_windows_take(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    some = windows(checkpoint, tmp_path / "out", path=str(text), sequences=2, length=16)
    cut = tmp_path / "cut.jsonl"
    cut.write_text(text.read_text(encoding="utf-8").splitlines()[0] + "\nnot JSON", encoding="utf-8")
    again = windows(checkpoint, tmp_path / "again", path=str(cut), sequences=2, length=16)
    np.testing.assert_array_equal(again.ids_ST, some.ids_ST)


PROSE = "\n".join(SPEECHES)


class Tokenizers(dict[str, Tokenizer]):
    """The tokenizers by name, each trained when it is first asked for."""

    def __missing__(self, name: str) -> Tokenizer:
        return self.setdefault(name, (CUT | WHOLE)[name]())


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return Tokenizers()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut texts of a few thousand characters as those of many thousand are."""
    monkeypatch.setattr(token_stream, "PIECE", 900)
    monkeypatch.setattr(token_stream, "OVERLAP", 60)


def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(SimpleNamespace(backend_tokenizer=tokenizer), "model")


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(f"{text}\n\n", add_special_tokens=False).ids


def whole_widths(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the UTF-8 bytes by which each token of the whole text goes further than all before."""
    untrimmed = Tokenizer.from_str(tokenizer.to_str())
    untrimmed.post_processor = None
    widths, furthest = [], 0
    for _, end in untrimmed.encode(text, add_special_tokens=False).offsets:
        widths.append(len(text[furthest : max(furthest, end)].encode()))
        furthest = max(furthest, end)
    return widths


@pytest.mark.parametrize("name", [*CUT, *WHOLE])
def test_the_tokens_of_pieces_are_those_of_the_whole(name, tokenizers, small_pieces) -> None:
    for seed in range(6):
        text = hard_text(seed)
        ids, widths = zip(*tokens([[text]], encoder(tokenizers[name])), strict=True)
        assert list(ids) == whole(tokenizers[name], text), seed
        assert list(widths) == whole_widths(tokenizers[name], f"{text}\n\n"), seed


class Read:
    """A text that says how much of it has been taken."""

    def __init__(self, text: str) -> None:
        self.text, self.taken = text, 0

    def pieces(self) -> Iterator[str]:
        for start in range(0, len(self.text), 500):
            self.taken = start + 500
            yield self.text[start : start + 500]


@pytest.mark.parametrize("name", CUT)
def test_tokens_at_the_start_are_those_of_the_whole_and_take_the_start_only(name, tokenizers, small_pieces) -> None:
    read = Read(PROSE)
    stream = tokens([read.pieces()], encoder(tokenizers[name]))
    found = [next(stream)[0] for _ in range(400)]
    assert found == whole(tokenizers[name], PROSE)[:400]
    assert read.taken < len(PROSE) / 20


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_cut_is_taken_whole_and_says_so_where_it_is_large(
    name, tokenizers, small_pieces, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(token_stream, "LARGE", 2_000)
    monkeypatch.setattr(token_stream, "LARGEST", 5_000)
    one = encoder(tokenizers[name])
    assert [token for token, _ in tokens([[PROSE[:4_000]]], one)] == whole(tokenizers[name], PROSE[:4_000])
    assert "model: has to encode a document in one piece, because" in capsys.readouterr().out
    with pytest.raises(SourceError, match=r"in one piece, because .* more than 5,000 characters; divide it"):
        list(tokens([[PROSE]], one))


@pytest.mark.parametrize("name", ["bytes", "numbers in threes", "pieces", "unigram", "word piece"])
def test_a_text_without_a_place_to_cut_grows_to_the_whole(name, tokenizers, small_pieces) -> None:
    for run in (" " * 5_000, "a" * 5_000, "ab" * 2_500, "7" * 5_000):
        text = f"One, two {run} three."
        assert [token for token, _ in tokens([[text]], encoder(tokenizers[name]))] == whole(tokenizers[name], text)


def windows_of_text(checkpoint: Path, folder: Path, text: str, **corpus: Any) -> TokenWindows:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    tokenize(checkpoint, Corpus(path=str(folder / "text.txt"), **corpus), folder / "out.arrow", LINEAGE)
    return read_windows(folder / "out.arrow")


@pytest.mark.parametrize("name", ["bytes", "numbers in threes", "pieces", "unigram", "word piece"])
def test_packed_windows_of_a_long_text_hold_the_tokens_of_the_whole(name, tokenizers, small_pieces, tmp_path) -> None:
    checkpoint = save_tokenizer(tmp_path / "model", tokenizers[name], bos_token="<s>")
    text = hard_text(7, 40_000)
    found = windows_of_text(checkpoint, tmp_path, text, sequences=40, length=100)
    assert found.ids_ST.flatten().tolist() == whole(tokenizers[name], text)[:4000]


@pytest.mark.parametrize("name", ["bytes", "numbers in threes", "pieces", "unigram", "word piece"])
def test_windows_of_2025_of_a_long_text_are_those_of_the_whole(name, tokenizers, tmp_path, monkeypatch) -> None:
    checkpoint = save_tokenizer(tmp_path / "model", tokenizers[name], bos_token="<s>")
    text, asked = f"{hard_text(3, 2_000)} {PROSE}", []
    read = Encoder.encode

    def encode(self: Encoder, text: str) -> Any:
        asked.append(len(text))
        return read(self, text)

    monkeypatch.setattr(Encoder, "encode", encode)
    found = windows_of_text(checkpoint, tmp_path, text, sequences=5, length=64, windows="arb8020")
    assert max(asked) < len(text) / 4
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    expected = [tokenizer.encode(each) for each in naive_windows(checkpoint, [text[: len(text) // 4]], 5, 64)]
    assert [found.ids(window).tolist() for window in range(5)] == expected
